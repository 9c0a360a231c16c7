"""The first screen: look at a recording, open a study, or start one with a model and a task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.app import recorded_study
from workbench.app.notice import Notice
from workbench.app.parts.controls import (
    LABEL,
    busy_html,
    button,
    buttons,
    card,
    classed,
    columns,
    heading,
    looks,
    row,
    show,
    text,
)
from workbench.app.parts.study_list import StudyList
from workbench.app.parts.task_form import TaskForm
from workbench.errors import DataError

if TYPE_CHECKING:
    from workbench.study import Study

    OnReady = Callable[[Study, str, bool], None]

MOST_FOUND = 30


class StartPanel:
    """What to work on. Everything that takes time happens in a background thread.

    Parameters
    ----------
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
        self, on_ready: OnReady, model: Any = None, path: str | Path | None = None
    ) -> None:
        self._on_ready = on_ready
        self._given = None if model is None or isinstance(model, (str, Path)) else model
        self.notice, self.open_notice = Notice(), Notice()
        start, opening = self.notice.guard, self.open_notice.guard
        self.status = classed(w.HTML(), "wb-note")

        self.look = button(
            "Look at a finished study", "eye", "A recording of the bundled model",
            opening(lambda _: self._look()),
        )  # fmt: skip
        self.copy = button(
            "Go on with a copy", "copy", "Copy it into the folder on the left",
            opening(lambda _: self._copy()),
        )  # fmt: skip
        self.open_path = w.Combobox(
            description="folder",
            placeholder="runs/demo",
            options=_found_studies(),
            value="" if path is None else str(path),
            **looks(),
        )
        self.open = button(
            "Open", "folder-open", "Bring every run of the study back",
            opening(lambda _: self._open()),
        )  # fmt: skip

        self.studies = StudyList(opening(self._pick))
        kinds = [("Bundled", "demo"), ("Folder or Hugging Face id", "ref")]
        kinds = [("Given", "given"), *kinds] if self._given is not None else kinds
        style = {"description_width": LABEL}
        self.model_kind = buttons(kinds, kind="wb-choice", description="model", style=style)
        self.model_ref = text(
            "which", placeholder="models/my-model or sentence-transformers/all-MiniLM-L6-v2"
        )
        if isinstance(model, (str, Path)) and str(model) != "demo":
            self.model_kind.value, self.model_ref.value = "ref", str(model)
        self.task = TaskForm(self.notice)
        self.path = text(
            "keep in",
            "runs/workbench" if path is None else str(path),
            tooltip="The study's folder; one that is there is continued",
        )
        self.start = button(
            "Start", "play", "Load the model and evaluate it", start(lambda _: self._start()),
            primary=True,
        )  # fmt: skip
        self.model_kind.observe(start(lambda _: self._show()), names="value")
        for field in (self.model_ref, self.path):
            field.observe(start(lambda _: None), names="value")

        own = card(
            "Start a study", self.model_kind, self.model_ref, *self.task.widgets, self.path,
            row(self.start), self.notice.widget, self.status,
        )  # fmt: skip
        first = card(
            "See one first",
            w.HTML(
                "<p>Accuracy against size of the bundled model, compressed in many ways: a"
                " recording, at once and without computing.</p>"
            ),
            row(self.look, self.copy),
            heading("Go on with one"),
            w.HTML("<p>Every run that was computed comes back.</p>"),
            self.studies,
            self.open_path,
            row(self.open),
            self.open_notice.widget,
        )
        lead = w.HTML(
            "<p class='wb-lead'>The right model is the smallest one that does your task well"
            " enough. Choose a model and your data, see accuracy against size, and keep the one"
            " that passes your bar.</p>"
        )
        self.widget = w.VBox([lead, columns("wb-start", own, first)])
        self.look.disabled = self.copy.disabled = not recorded_study.is_there()
        self._show()

    def code(self) -> str:
        """Return the Python that makes the model and the task."""
        return f"{self._model_code()}\n{self.task.code()}"

    def refresh(self) -> None:
        """Offer the studies that lie near by now."""
        self.open_path.options = _found_studies()
        self.studies.look()

    def show(self, is_seen: bool) -> None:
        """Say whether the panel is seen from now on."""
        if is_seen:
            self.refresh()

    # What is clicked

    def _look(self) -> None:
        self._in_background(
            "Opening the recording …",
            lambda: (recorded_study.open_recorded(), "", True),
            self.open_notice,
        )

    def _copy(self) -> None:
        path = self.path.value.strip() or "runs/workbench"
        setup = 'model = wb.load_model("demo")\ntask = wb.load_task("demo")'
        self._in_background(
            f"Copying the recording to {path} …",
            lambda: (recorded_study.copy_recorded(path), setup, False),
            self.open_notice,
        )

    def _pick(self, path: str) -> None:
        self.open_path.value = path
        self._open()

    def _open(self) -> None:
        from workbench.study import Study

        path = self.open_path.value.strip()
        if not path:
            raise DataError("No folder was given; give the folder of a study, such as runs/demo.")
        self._in_background(
            f"Opening {path} …", lambda: (Study.open(path), "", False), self.open_notice
        )

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

        self._in_background("Loading …", work, self.notice)

    def _in_background(
        self, text: str, work: Callable[[], tuple[Study, str, bool]], notice: Notice
    ) -> None:
        self._say(text)
        controls = (self.start, self.open, self.look, self.copy)
        for control in controls:
            control.disabled = True

        def run() -> None:
            try:
                ready = work()
            except Exception as error:
                notice.error(error)
                self._say("")
            else:
                self._say("")
                notice.guard(self._on_ready)(*ready)
            for control in controls:
                control.disabled = False
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
        show(self.model_ref, is_shown=self.model_kind.value == "ref")

    def _say(self, text: str) -> None:
        self.status.value = busy_html(text)


def _found_studies() -> list[str]:
    """Return the folders of studies that lie near, relative to the notebook."""
    found = [*Path().glob("*/study.sqlite"), *Path().glob("runs/*/study.sqlite")]
    return sorted(str(path.parent) for path in found)[:MOST_FOUND]
