"""The first screen: look at a recording, open a study, or start one with a model and a task."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app import recorded_study
from workbench.app.parts.notice import Notice
from workbench.app.parts.task_form import TaskForm
from workbench.errors import DataError

if TYPE_CHECKING:
    from workbench.study import Study

    OnReady = Callable[[Study, str, bool], None]

_WIDE = {"description_width": "104px"}
MOST_FOUND = 30


class StartPanel:
    """What to work on. Everything that takes time happens in a background thread.

    Parameters
    ----------
    banner : Notice
    on_ready : callable
        Called with the study, the Python that made it, and whether it is a recording.
    model : str or LoadedModel, optional
        Chosen already.
    path : str or Path, optional
        Where the study is kept.

    Attributes
    ----------
    widget : ipywidgets.Widget
    start, look, open : ipywidgets.Button
    task : TaskForm
    """

    def __init__(
        self, banner: Notice, on_ready: OnReady, model: Any = None, path: str | Path | None = None
    ) -> None:
        self._banner = banner
        self._on_ready = on_ready
        self._given = None if model is None or isinstance(model, (str, Path)) else model
        guard = banner.guard
        self.status = w.HTML()
        self.status.add_class("wb-note")

        self.look = _button("Look at a finished study", "eye", "A recording of the bundled model")
        self.look.on_click(guard(lambda _: self._look()))
        self.copy = _button("Go on with a copy", "copy", "Copy it into the folder on the left")
        self.copy.on_click(guard(lambda _: self._copy()))
        self.open_path = w.Combobox(
            description="folder",
            placeholder="runs/demo",
            options=_found_studies(),
            value="" if path is None else str(path),
            **_row(),
        )
        self.open = _button("Open", "folder-open", "Bring every run of the study back")
        self.open.on_click(guard(lambda _: self._open()))

        kinds = [("Bundled", "demo"), ("Folder or Hugging Face id", "ref")]
        kinds = [("Given", "given"), *kinds] if self._given is not None else kinds
        self.model_kind = _choice(kinds, "model")
        self.model_ref = w.Text(
            description="which",
            placeholder="models/my-model or sentence-transformers/all-MiniLM-L6-v2",
            **_row(),
        )
        if isinstance(model, (str, Path)) and str(model) != "demo":
            self.model_kind.value, self.model_ref.value = "ref", str(model)
        self.task = TaskForm(banner)
        self.path = w.Text(
            description="keep in",
            value="runs/workbench" if path is None else str(path),
            tooltip="The study's folder; one that is there is continued",
            **_row(),
        )
        self.start = _button("Start", "play", "Load the model and evaluate it", "primary")
        self.start.on_click(guard(lambda _: self._start()))
        self.model_kind.observe(lambda _: self._show(), names="value")

        own = [
            w.HTML("<h3>Start a study</h3>"),
            self.model_kind,
            self.model_ref,
            *self.task.widgets,
            self.path,
            self._row(self.start),
        ]
        first = [
            w.HTML(
                "<h3>See one first</h3><p>Accuracy against size of the bundled model, compressed in"
                " many ways: a recording, at once and without computing.</p>"
            ),
            self._row(self.look, self.copy),
            w.HTML("<h3>Go on with one</h3><p>Every run that was computed comes back.</p>"),
            self.open_path,
            self._row(self.open),
        ]
        cards = [w.VBox(own), w.VBox(first)]
        for card in cards:
            card.add_class("wb-card")
        both = w.HBox(cards)
        both.add_class("wb-start")
        lead = w.HTML(
            "<p class='wb-lead'>The right model is the smallest one that does your task well"
            " enough. Choose a model and your data, see accuracy against size, and keep the one"
            " that passes your bar.</p>"
        )
        self.widget = w.VBox([lead, both, self.status])
        self.look.disabled = self.copy.disabled = not recorded_study.is_there()
        self._show()

    def code(self) -> str:
        """Return the Python that makes the model and the task."""
        return f"{self._model_code()}\n{self.task.code()}"

    def begin(self) -> None:
        """Start with what is chosen, as the Start button does."""
        self._start()

    # What is clicked

    def _look(self) -> None:
        self._in_background(
            "Opening the recording …", lambda: (recorded_study.open_recorded(), "", True)
        )

    def _copy(self) -> None:
        path = self.path.value.strip() or "runs/workbench"
        setup = 'model = wb.load_model("demo")\ntask = wb.load_task("demo")'
        self._in_background(
            f"Copying the recording to {path} …",
            lambda: (recorded_study.copy_recorded(path), setup, False),
        )

    def _open(self) -> None:
        from workbench.study import Study

        path = self.open_path.value.strip()
        if not path:
            raise DataError("No folder was given; give the folder of a study, such as runs/demo.")
        self._in_background(f"Opening {path} …", lambda: (Study.open(path), "", False))

    def _start(self) -> None:
        make_model, make_task = self._model(), self.task.maker()
        path, setup = self.path.value.strip() or "runs/workbench", self.code()
        if self._given is not None and self.model_kind.value == "given":
            setup = ""

        def work() -> tuple[Study, str, bool]:
            from workbench.study import Study

            self._say("Loading the model … (a first import takes some seconds)")
            model = make_model()
            self._say(f"Reading the task … The model is {model.summary()}")
            task = make_task()
            self._say("Making the study …")
            Study(model, task, path=path).close()
            # Opened anew, it does not keep the model in this process: the worker has its own.
            return Study.open(path), setup, False

        self._in_background("Loading …", work)

    def _in_background(self, text: str, work: Callable[[], tuple[Study, str, bool]]) -> None:
        self._banner.clear()
        self._say(text)
        buttons = (self.start, self.open, self.look, self.copy)
        for button in buttons:
            button.disabled = True

        def run() -> None:
            try:
                ready = work()
            except Exception as error:
                self._banner.error(error)
                self._say("")
            else:
                self._say("")
                self._banner.guard(self._on_ready)(*ready)
            for button in buttons:
                button.disabled = False
            self.look.disabled = self.copy.disabled = not recorded_study.is_there()

        threading.Thread(target=run, name="wb-start", daemon=True).start()

    # The model and the task

    def _model_code(self) -> str:
        ref = "demo" if self.model_kind.value == "demo" else self.model_ref.value.strip()
        return f"model = wb.load_model({ref!r})"

    def _model(self) -> Callable[[], Any]:
        kind, ref = self.model_kind.value, self.model_ref.value.strip()
        if kind == "given":
            return lambda: self._given
        if kind == "ref" and not ref:
            raise DataError(
                "No model was given; write a folder or a Hugging Face id under “which”."
            )

        def make() -> Any:
            from workbench.models.load import load_model

            return load_model("demo" if kind == "demo" else ref)

        return make

    def _show(self) -> None:
        self.model_ref.layout.display = "" if self.model_kind.value == "ref" else "none"

    def _say(self, text: str) -> None:
        busy = '<span class="wb-spinner" aria-hidden="true"></span>' if text else ""
        self.status.value = f'{busy}<span role="status">{html.escape(text)}</span>' if text else ""

    @staticmethod
    def _row(*widgets: w.Widget) -> w.HBox:
        row = w.HBox(list(widgets))
        row.add_class("wb-buttons")
        return row


def _found_studies() -> list[str]:
    """Return the folders of studies that lie near, relative to the notebook."""
    found = [*Path().glob("*/study.sqlite"), *Path().glob("runs/*/study.sqlite")]
    return sorted(str(path.parent) for path in found)[:MOST_FOUND]


def _row() -> dict[str, Any]:
    """Return the look of a field, with a layout of its own."""
    return {"style": _WIDE, "layout": w.Layout(width="auto")}


def _choice(options: list[tuple[str, str]], text: str) -> w.ToggleButtons:
    chosen = w.ToggleButtons(
        options=options, description=text, style={"description_width": "104px"}
    )
    chosen.add_class("wb-choice")
    return chosen


def _button(text: str, icon: str, tooltip: str, style: str = "") -> w.Button:
    return w.Button(
        description=text,
        icon=icon,
        tooltip=tooltip,
        button_style=style,
        layout=w.Layout(width="auto"),
    )
