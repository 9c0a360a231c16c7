"""Hand over: the export as a zip file or to a hub, all points as a file, runs to MLflow."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from pathlib import Path

import ipywidgets as w

from workbench.app.panels.base import StudyPanel
from workbench.app.panels.export import ExportPanel
from workbench.app.parts.controls import (
    LONG_LABEL,
    about,
    answer_html,
    busy_html,
    button,
    card,
    check,
    row,
    text,
)
from workbench.app.session import Session
from workbench.errors import ConfigError
from workbench.handover import TOKEN, push_folder, zip_folder


class HandOverPanel(StudyPanel):
    """What is exported under *Keep it* goes on from here.

    Attributes
    ----------
    repo, points, uri : ipywidgets.Text
    zip, push, save, log : ipywidgets.Button
    answer : ipywidgets.HTML
    """

    def __init__(self, session: Session, export: ExportPanel) -> None:
        super().__init__(session)
        guard, look = self._guard, {"label": LONG_LABEL, "most": "520px"}
        self._export = export
        self._thread: threading.Thread | None = None
        self.zip = button(
            "Zip the export", "file-archive-o", "The folder of Keep it, as one file beside it",
            guard(lambda _: self._start("Writing the zip file …", self._zip)),
        )  # fmt: skip
        self.repo = text("repository", placeholder="me/my-model", **look)
        self.private = check("private", "Of a repository that is made", indent=False)
        self.private.value = True
        self.push = button(
            "Push to the hub", "cloud-upload", f"With the token in {TOKEN}, which is kept nowhere",
            guard(lambda _: self._start("Uploading …", self._push)),
        )  # fmt: skip
        self.points = text("all points", "points.csv", tooltip=".csv or .json", **look)
        self.save = button(
            "Save points", "table", "Every run and the predicted front",
            guard(lambda _: self._start("Writing …", self._save)),
        )  # fmt: skip
        self.uri = text("MLflow", placeholder="a server, or file:///a/folder", **look)
        self.log = button(
            "Log to MLflow", "share", "Every finished run, once",
            guard(lambda _: self._start("Logging …", self._log)),
        )  # fmt: skip
        self.answer = w.HTML()
        self.widget = card(
            "Hand over", about("The export of Keep it, and all numbers of the study."),
            row(self.zip), self.repo, row(self.push, self.private), self.points, row(self.save),
            self.uri, row(self.log), self.notice.widget, self.answer,
        )  # fmt: skip

    def code(self) -> str:
        """Return the Python that saves the points."""
        return f"study.save_points({self.points.value.strip()!r})"

    def _start(self, told: str, work: Callable[[], str]) -> None:
        """Do something that may take long beside the kernel's own thread."""
        if self._thread is not None and self._thread.is_alive():
            raise ConfigError("Something is being handed over already; wait for it.")
        self.answer.value = busy_html(told)

        def run() -> None:
            self.answer.value = ""
            self.answer.value = work()

        self._thread = threading.Thread(
            target=self.notice.watch(run), name="wb-hand-over", daemon=True
        )
        self._thread.start()

    def _folder(self) -> Path:
        given = self._export.path.value.strip()
        folder = Path(given).expanduser()
        if not given or not folder.is_dir():
            raise ConfigError("Nothing was exported there yet; Keep it above writes the folder.")
        return folder

    def _zip(self) -> str:
        made = zip_folder(self._folder(), overwrite=True)
        size = made.stat().st_size / 1e6
        return answer_html(f"Wrote {made} ({size:.2f} MB).", "pass", _link(made))

    def _push(self) -> str:
        where = push_folder(self._folder(), self.repo.value.strip(), private=self.private.value)
        return answer_html(f"Pushed: {where}", "pass")

    def _save(self) -> str:
        made = self._session.study.save_points(self.points.value.strip())
        return answer_html(f"Wrote {made}.", "pass", _link(made))

    def _log(self) -> str:
        uri = self.uri.value.strip() or None
        logged = self._session.study.log_to_mlflow(tracking_uri=uri)
        return answer_html(f"{len(logged)} runs are in MLflow.", "pass")


def _link(path: Path) -> str:
    """Return a link that downloads a file which lies below the notebook's folder."""
    try:
        inside = path.resolve().relative_to(Path.cwd())
    except ValueError:
        return ""
    where = html.escape(inside.as_posix(), quote=True)
    return f'<a href="{where}" download target="_blank">Download {html.escape(path.name)}</a>'
