"""The workbench as one widget: form, progress, plot, choice and table of one study."""

from __future__ import annotations

import asyncio
import contextlib
import html
import uuid
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.errors import ConfigError
from workbench.widgets.banner import Banner
from workbench.widgets.choose_panel import ChoosePanel
from workbench.widgets.frontier import WIDTH, FrontierPanel
from workbench.widgets.run_panel import RunPanel
from workbench.widgets.table import TablePanel, table_html

if TYPE_CHECKING:
    from workbench.study import Study


class Workbench:
    """Work on a study with sliders and buttons. Displaying it in a notebook shows it.

    Runs are computed in the study's worker process; the kernel stays free, and whatever is done
    here is in the study too. Each panel's ``code()`` is the Python that does the same.

    Parameters
    ----------
    study : Study

    Attributes
    ----------
    widget : ipywidgets.Widget
        The whole, for use inside other widgets.
    run_panel, frontier, choose_panel, table
        The panels.

    Examples
    --------
    >>> wb.Workbench(study)  # doctest: +SKIP
    """

    def __init__(self, study: Study) -> None:
        if not hasattr(study, "submit"):
            raise ConfigError(
                f"Workbench takes a study, not a {type(study).__name__}; make one with"
                " wb.Study(model, task, path=...)."
            )
        self.study = study
        self.banner = Banner()
        self.frontier = FrontierPanel(study)
        self.table = TablePanel(study)
        self.choose_panel = ChoosePanel(study)
        self.run_panel = RunPanel(study, self.banner, self.refresh)
        self._css = f"wb-picture-{uuid.uuid4().hex[:12]}"
        self._picture: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        narrow = w.Layout(flex="1 1 300px", min_width="300px", max_width="520px")
        left = w.VBox([self.run_panel.widget], layout=narrow)
        wide = w.Layout(flex=f"0 0 {WIDTH + 4}px")  # goes below the form where there is no room
        right = w.VBox([self.frontier.widget], layout=wide)
        top = w.HBox([left, right], layout=w.Layout(flex_flow="row wrap", width="100%"))
        # The picture for notebooks without a kernel is hidden for as long as this is shown.
        hide = w.HTML(f"<style>.{self._css} {{ display: none; }}</style>")
        self.widget = w.VBox(
            [self.banner.widget, top, self.choose_panel.widget, self.table.widget, hide],
            layout=w.Layout(width="100%"),
        )

    def refresh(self) -> None:
        """Show what the study holds now; may be called from any thread."""
        for panel in (self.frontier, self.table, self.choose_panel):
            self.banner.guard(panel.refresh)()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the kernel is shutting down
                self._loop.call_soon_threadsafe(self._update_picture)

    def code(self) -> str:
        """Return the Python that does what the panels show."""
        panels = (self.run_panel, self.frontier, self.choose_panel, self.table)
        return "\n".join(panel.code() for panel in panels)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        self.frontier.rebuild()
        display(self.widget)
        # Beside the widget, which is blank without a kernel (GitHub, nbconvert, a mail's preview).
        self._picture = display(
            self._saved(), raw=True, display_id=True, metadata={"workbench": "picture"}
        )
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def _saved(self) -> dict[str, str]:
        table = table_html(self.study.table(), self.study.metric.name)
        content = f'<div class="{self._css}">{self.frontier.picture()}{table}</div>'
        return {"text/html": content, "text/plain": repr(self)}

    def _update_picture(self) -> None:
        with contextlib.suppress(Exception):  # only the saved picture is older then
            self._picture.update(self._saved(), raw=True)

    def __repr__(self) -> str:
        return f"<Workbench of {self.study!r}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"
