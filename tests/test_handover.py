"""Handing over: zip files, a hub that a local server plays, points as a file, and MLflow."""

from __future__ import annotations

import base64
import csv
import http.server
import json
import threading
import zipfile

import pytest

from tests.toy import toy_study
from workbench.app.workbench import Workbench
from workbench.errors import ConfigError, ExportError
from workbench.handover import push_folder, zip_folder
from workbench.recipes import RTN, FineTuning
from workbench.recipes.recipe import Recipe


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my-model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "onnx" / "model.onnx").write_bytes(b"weights")
    return folder


class Hub(http.server.BaseHTTPRequestHandler):
    """What a hub answers to an upload of small files."""

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        server = self.server
        server.asked.append((self.command, self.path, self.headers.get("authorization"), body))
        status, said = 200, {}
        if self.headers.get("authorization") != "Bearer hf_right":
            status, said = 401, {"error": "Invalid credentials hf_wrong"}
        elif self.path.endswith("/repos/create"):
            said = {"url": f"{server.address}/me/m", "id": "me/m"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            said = {"files": [{**mode, "shouldIgnore": False} for mode in modes]}
        elif "/commit/" in self.path:
            said = {"commitUrl": f"{server.address}/me/m/commit/abc", "commitOid": "abc"}
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield server
        server.shutdown()


def test_a_folder_becomes_one_file_with_its_name_inside(folder):
    made = zip_folder(folder)
    assert made == folder.with_name("my-model.zip")
    with zipfile.ZipFile(made) as archive:
        assert archive.namelist() == ["my-model/config.json", "my-model/onnx/model.onnx"]
        assert archive.read("my-model/onnx/model.onnx") == b"weights"
    with pytest.raises(ExportError, match="exists already"):
        zip_folder(folder)
    assert zip_folder(folder, overwrite=True) == made
    with pytest.raises(ExportError, match="no folder"):
        zip_folder(folder / "gone")


def test_links_in_a_folder_are_left_out(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (folder / "link").symlink_to(secret)
    with zipfile.ZipFile(zip_folder(folder)) as archive:
        assert "my-model/link" not in archive.namelist()


def test_a_folder_is_pushed_with_the_token_of_the_environment(folder, hub):
    assert push_folder(folder, "me/m").endswith("/commit/abc")
    first, *_ = hub.asked
    assert first[:3] == ("POST", "/api/repos/create", "Bearer hf_right")
    assert json.loads(first[3])["visibility"] == "private"
    (commit,) = [body for _, path, _, body in hub.asked if "/commit/" in path]
    lines = [json.loads(line) for line in commit.splitlines()]
    files = {one["value"]["path"]: one["value"] for one in lines if one["key"] == "file"}
    assert base64.b64decode(files["config.json"]["content"]) == b'{"a": 1}'
    assert set(files) == {"config.json", "onnx/model.onnx"}


def test_a_push_that_is_refused_says_so_without_the_token(folder, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ExportError) as caught:
        push_folder(folder, "me/m")
    assert "401" in str(caught.value)
    assert "hf_wrong" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        push_folder(folder, "me/m")
    with pytest.raises(ConfigError, match="owner and name"):
        push_folder(folder, "m")
    assert not any("/commit/" in path for _, path, _, _ in hub.asked), "nothing was uploaded"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with toy_study(tmp_path_factory.mktemp("toy") / "study") as study:
        study.run(RTN(4, group_size=8))
        study.run(FineTuning(epochs=1.0))
        yield study


def test_all_points_are_saved(study, tmp_path):
    run = study["RTN 4-bit g8"]
    run.note = "=cmd()"
    rows = json.loads(study.save_points(tmp_path / "points.json").read_text())
    assert [row["kind"] for row in rows] == ["measured"] * 3
    mine = next(row for row in rows if row["run"] == run.id)
    assert mine["size_mb"] == run.size_mb
    assert mine["perplexity"] == run["perplexity"]
    assert Recipe.from_json(mine["recipe_json"]) == run.recipe
    with study.save_points(tmp_path / "points.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["note"] for row in table if row["run"] == run.id] == ["'=cmd()"]
    with pytest.raises(ConfigError, match=r"\.csv or \.json"):
        study.save_points(tmp_path / "points.xlsx")


def test_runs_are_logged_to_mlflow_once(study, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = tmp_path / "mlruns"
    ids = study.log_to_mlflow(tracking_uri=store)
    assert study.log_to_mlflow(tracking_uri=store) == ids
    client = MlflowClient(store.as_uri())
    by_run = {client.get_run(id).data.tags["workbench.run"]: client.get_run(id) for id in ids}
    assert set(by_run) == {run.id for run in study.runs}
    run = study["RTN 4-bit g8"]
    data = by_run[run.id].data
    assert data.metrics["perplexity"] == pytest.approx(run["perplexity"])
    assert data.metrics["size_bytes"] == run.size_bytes
    assert data.params["recipe"] == "RTN 4-bit g8"
    trained = by_run[study["Fine-tune (1 ep)"].id]
    curve = client.get_metric_history(trained.info.run_id, "train_loss")
    told = study.loss_curves([study["Fine-tune (1 ep)"]]).curves[0].loss
    assert [(m.step, m.value) for m in curve] == list(told)


def test_the_application_hands_over(study, folder, hub, tmp_path, monkeypatch):
    panels = Workbench(study).panels
    panel, export = panels.handover, panels.export

    def press(button):
        button.click()
        panel._thread.join(20)

    export.path.value = str(folder / "nothing")
    press(panel.zip)
    assert "Nothing was exported there yet" in panel.notice.text
    export.path.value = str(folder)
    press(panel.zip)
    assert "my-model.zip" in panel.answer.value
    panel.repo.value = "me/m"
    press(panel.push)
    assert "/commit/abc" in panel.answer.value
    monkeypatch.chdir(tmp_path)
    panel.points.value = "points.csv"
    press(panel.save)
    assert (tmp_path / "points.csv").exists()
    assert 'href="points.csv" download' in panel.answer.value
