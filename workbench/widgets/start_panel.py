"""The first screen: look at a recording, open a study, or start one with a model and a task."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from workbench.errors import DataError, WorkbenchError
from workbench.widgets import recorded
from workbench.widgets.banner import Banner
from workbench.widgets.rows import rows_html

if TYPE_CHECKING:
    import pandas as pd

    from workbench.study import Study

    OnReady = Callable[[Study, str, bool], None]

_WIDE = {"description_width": "104px"}
PREVIEWED = 200
MOST_FOUND = 30
UPLOAD_BYTES = 8_000_000
"""Jupyter's messages are limited to 10 MB by default."""


class StartPanel:
    """What to work on. Everything that takes time happens in a background thread.

    Parameters
    ----------
    banner : Banner
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
    """

    def __init__(
        self, banner: Banner, on_ready: OnReady, model: Any = None, path: str | Path | None = None
    ) -> None:
        self._banner = banner
        self._on_ready = on_ready
        self._given = None if model is None or isinstance(model, (str, Path)) else model
        self._uploaded: Path | None = None
        self._preview_number = 0
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
        self.task_kind = _choice(
            [("Demo", "demo"), ("Labelled table", "table"), ("Texts", "texts")], "task"
        )
        self.upload = w.FileUpload(
            accept=".csv,.tsv,.jsonl,.json,.txt,.parquet",
            multiple=False,
            description="Upload",
            tooltip="A CSV, TSV, JSON lines or text file of up to 8 MB",
            layout=w.Layout(width="auto"),
        )
        self.data_path = w.Text(description="or its path", placeholder="data/tickets.csv", **_row())
        self.text_column = w.Dropdown(description="text", options=[], **_row())
        self.label_column = w.Dropdown(description="label", options=[], **_row())
        self.preview = w.HTML()
        self.path = w.Text(
            description="keep in",
            value="runs/workbench" if path is None else str(path),
            tooltip="The study's folder; one that is there is continued",
            **_row(),
        )
        self.start = _button("Start", "play", "Load the model and evaluate it", "primary")
        self.start.on_click(guard(lambda _: self._start()))
        for control in (self.model_kind, self.task_kind):
            control.observe(lambda _: self._show(), names="value")
        self.upload.observe(guard(self._receive), names="value")
        self.data_path.observe(guard(lambda _: self._preview()), names="value")

        own = [
            w.HTML("<h3>Start a study</h3>"),
            self.model_kind,
            self.model_ref,
            self.task_kind,
            self._row(self.upload, self.data_path),
            self.text_column,
            self.label_column,
            self.preview,
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
        self.look.disabled = self.copy.disabled = not recorded.is_there()
        self._show()

    def code(self) -> str:
        """Return the Python that makes the model and the task."""
        return f"{self._model_code()}\n{self._task_code()}"

    def begin(self) -> None:
        """Start with what is chosen, as the Start button does."""
        self._start()

    # What is clicked

    def _look(self) -> None:
        self._in_background("Opening the recording …", lambda: (recorded.open_recorded(), "", True))

    def _copy(self) -> None:
        path = self.path.value.strip() or "runs/workbench"
        setup = 'model = wb.load_model("demo")\ntask = wb.load_task("demo")'
        self._in_background(
            f"Copying the recording to {path} …",
            lambda: (recorded.copy_recorded(path), setup, False),
        )

    def _open(self) -> None:
        from workbench.study import Study

        path = self.open_path.value.strip()
        if not path:
            raise DataError("No folder was given; give the folder of a study, such as runs/demo.")
        self._in_background(f"Opening {path} …", lambda: (Study.open(path), "", False))

    def _start(self) -> None:
        make_model, make_task = self._model(), self._task()
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
            self.look.disabled = self.copy.disabled = not recorded.is_there()

        threading.Thread(target=run, name="wb-start", daemon=True).start()

    # The model and the task

    def _model_code(self) -> str:
        ref = "demo" if self.model_kind.value == "demo" else self.model_ref.value.strip()
        return f"model = wb.load_model({ref!r})"

    def _task_code(self) -> str:
        kind = self.task_kind.value
        if kind == "demo":
            return 'task = wb.load_task("demo")'
        data = str(self._data() or "")
        if kind == "texts":
            return f"task = wb.LanguageModeling({data!r})"
        columns = f"text={self.text_column.value!r}, label={self.label_column.value!r}"
        return f"task = wb.TextClassification({data!r}, {columns})"

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

    def _task(self) -> Callable[[], Any]:
        kind, data = self.task_kind.value, self._data()
        text, label = self.text_column.value, self.label_column.value
        if kind != "demo" and data is None:
            raise DataError("No data was given; upload a file, or write its path.")
        if kind == "table" and (not text or not label):
            raise DataError(
                "No columns are chosen; choose which one has the text, which the label."
            )

        def make() -> Any:
            from workbench.tasks import LanguageModeling, TextClassification, load_task

            if kind == "demo":
                return load_task("demo")
            if kind == "texts":
                return LanguageModeling(data)
            return TextClassification(data, text=text, label=label)

        return make

    def _data(self) -> Path | None:
        given = self.data_path.value.strip()
        return Path(given).expanduser() if given else self._uploaded

    def _receive(self, _: Any) -> None:
        if not self.upload.value:
            return
        file = self.upload.value[0]
        if file["size"] > UPLOAD_BYTES:
            raise DataError(
                f"{file['name']} has {file['size'] / 1e6:.0f} MB; up to {UPLOAD_BYTES / 1e6:.0f} MB"
                " can be uploaded. Put it beside the notebook and write its path instead."
            )
        folder = Path("uploads")
        folder.mkdir(exist_ok=True)
        path = folder / Path(file["name"]).name
        path.write_bytes(bytes(file["content"]))
        self._uploaded = path
        self.data_path.value = ""
        self._preview()

    def _preview(self) -> None:
        """Read the first rows in the background, and offer their columns."""
        path = self._data()
        self.text_column.options = self.label_column.options = []
        self.preview.value = ""
        if path is None or self.task_kind.value == "demo":
            return
        self._preview_number += 1
        number, kind = self._preview_number, self.task_kind.value

        def read() -> None:
            try:
                shown = _text_preview(path) if kind == "texts" else self._read_table(path, number)
            except WorkbenchError as error:
                shown = f'<div class="wb-problem" role="alert">{html.escape(str(error))}</div>'
            except Exception as error:  # whatever a reader of tables raises on a broken file
                words = f"{path.name} cannot be read as a table: {error}"
                advice = "Give a CSV, TSV, JSON lines or parquet file with one row per text."
                text = html.escape(f"{words[:400].rstrip('. ')}. {advice}")
                shown = f'<div class="wb-problem" role="alert">{text}</div>'
            if number == self._preview_number:
                self.preview.value = shown

        threading.Thread(target=read, name="wb-preview", daemon=True).start()

    def _read_table(self, path: Path, number: int) -> str:
        frame = _read_rows(path)
        if number == self._preview_number:
            names = [str(name) for name in frame.columns]
            self.text_column.options = self.label_column.options = names
            self.text_column.value, self.label_column.value = _guess(frame)
        heads = [(str(name), "wrap") for name in frame.columns]
        rows = [("", [str(cell)[:120] for cell in row]) for row in frame.head(4).to_numpy()]
        return f'<div class="wb-scroll">{rows_html(heads, rows)}</div>'

    def _show(self) -> None:
        is_demo = self.task_kind.value == "demo"
        self.model_ref.layout.display = "" if self.model_kind.value == "ref" else "none"
        for control in (self.upload, self.data_path, self.preview):
            control.layout.display = "none" if is_demo else ""
        for control in (self.text_column, self.label_column):
            control.layout.display = "" if self.task_kind.value == "table" else "none"
        if not is_demo:
            self._preview()

    def _say(self, text: str) -> None:
        busy = '<span class="wb-spinner" aria-hidden="true"></span>' if text else ""
        self.status.value = f'{busy}<span role="status">{html.escape(text)}</span>' if text else ""

    @staticmethod
    def _row(*widgets: w.Widget) -> w.HBox:
        row = w.HBox(list(widgets))
        row.add_class("wb-buttons")
        return row


def _read_rows(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise DataError(f"There is no file {path}; give the path of a table, or upload one.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        frame = pd.read_parquet(path).head(PREVIEWED)
    elif suffix in (".jsonl", ".ndjson"):
        frame = pd.read_json(path, lines=True, nrows=PREVIEWED)
    elif suffix == ".json":
        frame = pd.read_json(path).head(PREVIEWED)
    else:
        separator = "\t" if suffix == ".tsv" else ","
        frame = pd.read_csv(path, nrows=PREVIEWED, sep=separator, encoding="utf-8")
    if len(frame.columns) < 2:
        raise DataError(
            f"{path.name} has {len(frame.columns)} column; a labelled table needs two, one with the"
            " texts and one with their labels. Separate columns by commas (.csv) or tabs (.tsv)."
        )
    if frame.empty:
        raise DataError(f"{path.name} has no rows; give a table with one row per text.")
    return frame


def _guess(frame: pd.DataFrame) -> tuple[str, str]:
    """Return the columns that look like the texts (the longest) and the labels (few values)."""
    texts = frame.astype(str)
    lengths = {str(name): texts[name].str.len().mean() for name in frame.columns}
    text = max(lengths, key=lambda name: lengths[name])
    others = [str(name) for name in frame.columns if str(name) != text]
    named = [n for n in others if n.lower() in ("label", "intent", "category", "class", "target")]
    fewest = min(others, key=lambda name: texts[name].nunique())
    return text, (named or [fewest])[0]


def _text_preview(path: Path) -> str:
    if not path.exists():
        raise DataError(f"There is no file or folder {path}; give the path of a text file.")
    if path.is_dir():
        return f"<p>{len(list(path.rglob('*.txt')))} text files</p>"
    text = path.read_bytes()[:600].decode("utf-8", errors="replace")
    return f"<pre>{html.escape(text)}</pre>"


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
