"""The workbench as one widget, from the start screen to the code that is kept."""

from __future__ import annotations

import asyncio
import contextlib
import html
import threading
import uuid
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app import last_study, recorded_study
from workbench.app.inspector_client import Inspector
from workbench.app.journal_watch import JournalWatch
from workbench.app.notice import Notice
from workbench.app.panels.plan import PlanPanel
from workbench.app.panels.runs import table_html
from workbench.app.panels.start import StartPanel
from workbench.app.parts.controls import buttons, classed, close, show
from workbench.app.session import Session
from workbench.app.tabs import (
    CODE,
    COMPARE,
    EXPLORE,
    KEEP,
    LINEAGE,
    PLAN,
    START,
    TABS,
    TRUST,
    TRY,
    Panels,
)
from workbench.errors import ConfigError
from workbench.recipes.recipe import shortened
from workbench.records import RunState
from workbench.study.running.runner import FINAL, Event

if TYPE_CHECKING:
    from workbench.prediction.predict import Prediction
    from workbench.recipes.recipe import Recipe
    from workbench.study import Study

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


class Application:
    """The one application that shows a study in this kernel, however often it is displayed.

    ipywidgets keeps every widget for as long as the kernel runs: a cell that is run again would
    leave another thousand behind, and all that their study computes.

    Attributes
    ----------
    newest : Workbench or None
        Whose it is to close.
    joined : Application or None
        The one whose place this one's widget takes: its study was open there already.
    """

    newest: Workbench | None = None
    joined: Application | None = None

    def __init__(
        self, study: Study | None, model: Any, path: str | Path | None, *, is_own: bool
    ) -> None:
        self.study: Study | None = None
        self.notice = Notice()
        self._css = f"wb-picture-{uuid.uuid4().hex[:12]}"
        self._picture: Any = None
        self._words = "<Workbench>"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Session | None = None
        self._watch: JournalWatch | None = None
        self._is_own = False
        self._of: tuple[str, ...] = ()
        self._stale: set[str] = set()
        self.nav = buttons(TABS, kind="wb-nav")
        self.head = w.HTML()
        self.start = StartPanel(self._ready, model, path)
        self.plan = PlanPanel()
        self._bodies: dict[str, w.Widget] = {START: self.start.widget, PLAN: self.plan.widget}
        self._body = classed(w.VBox(list(self._bodies.values())), "wb-body")
        self.nav.observe(self.notice.guard(lambda _: self._switch()), names="value")
        # The picture for notebooks without a kernel is hidden for as long as this is shown.
        hide = w.HTML(f"<style>.{self._css} {{ display: none; }}</style>")
        style = w.HTML(f"<style>{STYLE}</style>")
        for hidden in (style, hide):
            hidden.layout.display = "contents"
        self.widget = w.VBox(
            [style, self.head, self.nav, self.notice.widget, self._body, hide],
            layout=w.Layout(width="100%"),
        )
        self.widget.add_class("wb-app")
        if study is not None:
            self._show_study(study, "", is_recorded=False, is_own=is_own)
        self._switch()

    def end(self) -> None:
        """End the processes that were started for it, and take it off the page."""
        self._unregister()
        if self._session is not None:
            if self._watch is not None:  # else the study is being shown still
                self._watch.stop()
            self._session.inspector.stop()
            if self._is_own:
                self._session.study.close()
            self.panels.recipe.form.close()
        self.start.task.close()
        close(self.widget)

    # A study is there

    def _ready(self, study: Study, setup: str, is_recorded: bool) -> None:
        self._show_study(study, setup, is_recorded=is_recorded, is_own=True)
        self.begin()

    def begin(self) -> None:
        """Evaluate the base model and make predictions ready, unless both were done already."""
        session = self._session
        if session is None or session.is_recorded:
            return
        done = [r for r in session.study.records if r.state is RunState.DONE]
        if not any(not record.recipe.steps for record in done):
            from workbench.recipes.recipe import Recipe

            session.submit([Recipe()])
        if session.study.lacks_predictions():
            session.study.submit_tabulate(on_event=session.events.emit)

    def _show_study(self, study: Study, setup: str, *, is_recorded: bool, is_own: bool) -> None:
        """Show a study in place of what was shown before."""
        earlier = _OPEN.get(_key(study))
        if is_own and earlier is not None and earlier.shows(study):  # what it computes goes on
            study.close()
            if earlier is not self:
                self._release()
                self.start.task.close()
                for part in self.widget.children[:-1]:  # the last one hides the picture
                    close(part)
                self.widget.children = [earlier.widget, self.widget.children[-1]]
                self.joined, earlier.newest = earlier, self.newest
            assert earlier._session is not None
            earlier._session.history.setup = setup or earlier._session.history.setup
            earlier.refresh()
            earlier.nav.value = EXPLORE
            return
        if earlier is not None and earlier is not self:
            earlier.end()  # its folder was deleted, and is another study's now
        self._release()
        inspector = Inspector(study.path)
        self.study, self._is_own = study, is_own
        self._of = study.fingerprints
        session = Session(study, self.notice, inspector, is_recorded=is_recorded)
        session.history.setup = setup
        self._session = session
        self._finalizer = weakref.finalize(self, session.inspector.stop)
        self.panels = Panels(session)
        session.events.listen(self.notice.watch(self._changed))
        session.edited.listen(self._edit)
        session.measured.listen(self.refresh)
        session.curated.listen(self.refresh)
        _OPEN[_key(study)] = self
        self.plan.offer(study)
        self._bodies = {
            START: self.start.widget,
            PLAN: self.plan.widget,
            EXPLORE: self.panels.explore(),
            COMPARE: self.panels.compare.widget,
            TRY: self.panels.tryout.widget,
            LINEAGE: self.panels.lineage.widget,
            TRUST: self.panels.trust.widget,
            KEEP: self.panels.deciding.widget,
            CODE: self.panels.code.widget,
        }
        self._body.children = list(self._bodies.values())
        self._show_head()
        self.nav.value = EXPLORE
        self._switch()
        self._schedule_picture()
        self._watch = JournalWatch(study, self.refresh)
        if is_own and not is_recorded:
            last_study.remember(study.path)
            self.notice.watch(self.panels.queue.resume)()

    def _unregister(self) -> None:
        for key in [key for key, app in _OPEN.items() if app is self]:
            del _OPEN[key]

    def shows(self, study: Study, *, is_given: bool = False) -> bool:
        """Return whether it has a study open to compute in: that very one, or the same folder's."""
        if is_given or self.study is study:
            return self.study is study
        if self.study is None or not self.study.is_open:
            return False
        return study.fingerprints[: len(self._of)] == self._of

    def _release(self) -> None:
        self._unregister()
        if self._session is None:
            return
        if self._watch is not None:
            self._watch.stop()
        self._session.inspector.stop()
        self.panels.recipe.form.close()
        for name, body in self._bodies.items():
            if name not in (START, PLAN):
                close(body)
        if self._is_own:
            threading.Thread(
                target=_finish, args=(self._session.study,), name="wb-end", daemon=True
            ).start()

    def _edit(self, recipe: Recipe) -> None:
        """Take a predicted recipe that was clicked: into the form, or to be run where none fits."""
        assert self._session is not None
        try:
            self.panels.recipe.recipe = recipe
        except ConfigError:
            if self._session.is_recorded:
                raise
            self._session.submit([recipe])
            self.notice.note(
                f"{shortened(recipe.label)} is queued: it has a precision of its own for every"
                " layer, so there is no form for it. Cancel is below."
            )

    def _changed(self, event: Event) -> None:
        """Show what an event of the worker changed; called in a background thread."""
        if event.kind in FINAL or event.kind == "started":
            self._show_pending()
        if event.kind in FINAL:
            self.refresh()

    def _show_pending(self) -> None:
        assert self._session is not None
        pending: list[tuple[Prediction, str]] = []
        for recipe, state in self.panels.queue.pending:
            found = self._session.study.predict_now(recipe) if recipe.steps else None
            if found is not None:
                pending.append((found, state))
        self.panels.frontier.show_pending(tuple(pending))

    def refresh(self) -> None:
        """Show what the study holds now; may be called from any thread.

        A tab that is not seen is refreshed when it is opened.
        """
        if self._session is None:
            return
        self.plan.offer(self._session.study)
        self._stale |= set(self.panels.of)
        self._refresh_tab()
        self.notice.watch(self._show_head)()
        self._schedule_picture()

    # What is shown

    def _refresh_tab(self) -> None:
        """Refresh the panels of the tab that is seen, if the study changed since they were."""
        if self.nav.value in self._stale:
            self._stale.discard(self.nav.value)
            for panel in self.panels.of[self.nav.value]:
                panel.refresh()

    def _switch(self) -> None:
        chosen = self.nav.value
        if chosen not in self._bodies:
            self.nav.value = chosen = START
            self.notice.note("Start or open a study first.")
        for name, body in self._bodies.items():
            show(body, is_shown=name == chosen)
        self.start.show(chosen == START)
        self.plan.show(chosen == PLAN)
        if self._session is None:
            return
        self._refresh_tab()
        self._session.history.keep("plan", self.plan.code())
        self.panels.curves.show(chosen == EXPLORE)
        self.panels.compare.show(chosen == COMPARE)
        self.panels.lineage.show(chosen == LINEAGE)
        self.panels.trust.show(chosen == TRUST)
        self.panels.deciding.show(chosen == KEEP)
        self.panels.code.show(chosen == CODE)

    def _show_head(self) -> None:
        if self.study is None or self._session is None:
            return
        described = self.study.describe()
        parts = []
        for name, known in described["models"].items():
            parts.append(
                f"<b>{html.escape(name)}</b> {html.escape(known['architecture'])},"
                f" {known['n_parameters'] / 1e6:.1f} M parameters,"
                f" {known['size_bytes'] / 1e6:.1f} MB"
            )
        parts.append(f"task <b>{html.escape(described['task']['name'])}</b>")
        baseline = self.study.baseline()
        metric = self.study.metric
        found = None if baseline is None else baseline.record.measurement(metric.name)
        if found is not None:
            name = html.escape(metric.name.replace("_", " "))
            error = "" if found.stderr is None else f" ± {1.96 * found.stderr:.2g}"
            parts.append(f"{name} <b>{found.value:.4g}</b>{error}")
        if not self._session.is_recorded:
            parts.append(html.escape(_short(self.study.path)))
        text = '<span class="wb-dot">·</span>'.join(parts)
        note = ""
        if self._session.is_recorded:
            note = f'<div class="wb-recorded" role="note">{html.escape(recorded_study.ABOUT)}</div>'
        self.head.value = f'<div class="wb-head">{text}</div>{note}'

    def code(self) -> str:
        """Return the Python that does what the panels show."""
        if self._session is None:
            return self.start.code()
        panels = self.panels
        shown = (
            panels.recipe, panels.frontier, panels.choose, panels.cost, panels.routing,
            panels.trust, self.plan, panels.table,
        )  # fmt: skip
        return "\n".join(filter(None, (panel.code() for panel in shown)))

    def display(self, words: str) -> None:
        """Show it in the output of a cell, and a picture beside it."""
        from IPython.display import display

        self._words = words
        if self._session is not None:
            self.panels.frontier.rebuild()
        display(self.widget)
        # Beside the widget, which is blank without a kernel (GitHub, nbconvert, a mail's preview).
        self._picture = display(
            self._saved(), raw=True, display_id=True, metadata={"workbench": "picture"}
        )
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def _saved(self) -> dict[str, str]:
        content = "<p>The workbench is shown while its kernel runs.</p>"
        if self.study is not None:
            table = table_html(self.study.table(), self.study.metric.name)
            content = f"{self.panels.frontier.picture()}{table}"
        return {
            "text/html": f'<div class="{self._css}">{content}</div>',
            "text/plain": self._words,
        }

    def _schedule_picture(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the kernel is shutting down
                self._loop.call_soon_threadsafe(self._update_picture)

    def _update_picture(self) -> None:
        with contextlib.suppress(Exception):  # only the saved picture is older then
            self._picture.update(self._saved(), raw=True)


class Workbench:
    """Work on a study with sliders and buttons. Displaying it in a notebook shows it.

    Runs are computed in the study's worker process; the kernel stays free, and whatever is done
    here is in the study too. Each panel's ``code()`` is the Python that does the same.

    Parameters
    ----------
    what : Study, LoadedModel or str, optional
        A study; or a model (a reference such as ``"demo"``, or a loaded one) to start one with.
        Default: the start screen.
    path : str or Path, optional
        A study's folder. One that is there is opened; else the start screen keeps its study there.
        Default: what this notebook showed last, if its kernel was started anew.

    Attributes
    ----------
    widget : ipywidgets.Widget
        The whole, for use inside other widgets.
    study : Study or None
    start : StartPanel
    plan : PlanPanel
    panels : Panels
        Those of the study; there once there is one.

    Examples
    --------
    >>> wb.Workbench()  # doctest: +SKIP
    >>> wb.Workbench(path="runs/demo")  # doctest: +SKIP
    """

    def __init__(self, what: Any = None, *, path: str | Path | None = None) -> None:
        study = _study_in(what, path)
        key = _key(study, what, path)
        app = _OPEN.get(key)
        if app is not None and study is not None and not app.shows(study, is_given=study is what):
            app.end()
            app = None
        if app is None:
            model = None if study is not None else what
            app = _OPEN[key] = Application(study, model, path, is_own=study is not what)
        else:
            if study is not None and study is not app.study:
                study.close()
            app.refresh()
        self._held = app
        app.newest = self

    @property
    def _app(self) -> Application:
        app = self._held
        while app.joined is not None:
            app = app.joined
        return app

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_held":
            raise AttributeError(name)
        return getattr(self._app, name)

    def close(self) -> None:
        """End the processes that were started for it, and take it off the page.

        What was computed is in the study's folder. A study that was given stays as it is; one
        that was opened or started here is closed. A workbench whose cell was run again leaves all
        that to the later one.
        """
        if self._app.newest is self:
            self._app.end()

    def refresh(self) -> None:
        """Show what the study holds now; may be called from any thread."""
        self._app.refresh()

    def code(self) -> str:
        """Return the Python that does what the panels show."""
        return self._app.code()

    def _ipython_display_(self) -> None:
        self._app.display(repr(self))

    def __repr__(self) -> str:
        study = self._app.study
        return "<Workbench>" if study is None else f"<Workbench of {study!r}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


_OPEN: dict[tuple[str, str], Application] = {}
"""The applications of this kernel, by what they show."""


def _key(study: Study | None, model: Any = None, path: str | Path | None = None) -> tuple[str, str]:
    if study is not None:
        return "study", str(study.path.resolve())
    given = model if isinstance(model, (str, Path)) or model is None else id(model)
    return f"start {given}", str(path)


def _finish(study: Study) -> None:
    """Close a study that nobody looks at any more, once what it computes is done."""
    study.wait()
    study.close()


def _short(path: Path) -> str:
    """Return a folder relative to where the kernel works, where it lies below."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _study_in(what: Any, path: str | Path | None) -> Study | None:
    """Return the study that was given, or is in the folder; None if one is to be started."""
    if hasattr(what, "submit"):
        if path is not None:
            raise ConfigError("Workbench takes a study or path=..., not both.")
        return what
    if what is not None and not isinstance(what, (str, Path)) and not hasattr(what, "hf_model"):
        raise ConfigError(
            f"Workbench takes a study or a model, not a {type(what).__name__}; make a study with"
            " wb.Study(model, task, path=...), or give nothing for the start screen."
        )
    if what is None and path is None:
        path = last_study.last()  # the notebook's cell is run again after a restart
    if path is not None and what is None:
        from workbench.storage.store import JOURNAL_NAME
        from workbench.study import Study

        if (Path(path).expanduser() / JOURNAL_NAME).is_file():
            return Study.open(path)
    return None
