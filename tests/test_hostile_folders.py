"""Folders that somebody else wrote: nothing outside of them is read, written, deleted or run."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import tiny_folder
from tests.toy import mean_loss, toy_model, toy_study, toy_task
from workbench.atomic_files import write_file
from workbench.errors import (
    ConfigError,
    DataError,
    ModelNotFoundError,
    StudyError,
    UnsafePathError,
    UnsupportedArchitectureError,
    WorkbenchError,
)
from workbench.export.card import _code, plain
from workbench.models.load import load_model
from workbench.recipes import RTN
from workbench.selection.cascades import Router
from workbench.storage.store import JOURNAL_NAME, Store
from workbench.study import Study
from workbench.study.handing_over import csv_of
from workbench.tasks.data import read_snapshot
from workbench.tasks.outcomes import Outcomes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a finished run, to be copied."""
    with toy_study(tmp_path_factory.mktemp("whole") / "study") as study:
        study.run(RTN(4, group_size=8))
        return study.path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "study"))


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user's, which must be as it was after the test."""
    path = tmp_path / "precious"
    path.mkdir()
    for name in ("thesis.safetensors", "thesis.tmp", ".hidden", "notes.txt"):
        (path / name).write_text(name)
        os.utime(path / name, (0, 0))  # old, so that whoever clears up would take it
    before = contents(path)
    yield path
    assert contents(path) == before


def contents(path: Path) -> dict[str, tuple[bytes, float]]:
    files = [one for one in path.rglob("*") if one.is_file()]
    return {str(one): (one.read_bytes(), one.stat().st_mtime) for one in files}


def change(folder: Path, statement: str, *values: Any) -> None:
    with sqlite3.connect(folder / JOURNAL_NAME) as db:
        db.execute(statement, values)
        for table in ("meta", "models"):  # as whoever forges one can do
            with contextlib.suppress(sqlite3.Error):
                db.execute(f"UPDATE {table} SET digest = NULL")
    db.close()


OPENERS = {
    "open": Study.open,
    "store": Store.open,
    "create": lambda path: Study(toy_model(), toy_task(), path),
}


class TestLinks:
    @pytest.mark.parametrize("opener", OPENERS)
    @pytest.mark.parametrize(
        "name",
        ["checkpoints", "statistics", "artifacts", "outcomes", "predictions", "models", "task"],
    )
    def test_a_folder_that_is_a_link(
        self, folder: Path, precious: Path, name: str, opener: str
    ) -> None:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).symlink_to(precious)
        with pytest.raises(UnsafePathError, match=f"{name} .*outside of the folder"):
            OPENERS[opener](folder)

    @pytest.mark.parametrize("name", ["worker.log", "study.sqlite", "inspector.log"])
    def test_a_file_that_is_a_link(self, folder: Path, precious: Path, name: str) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(precious / "notes.txt")
        with pytest.raises(WorkbenchError):
            Study.open(folder)

    def test_a_link_that_was_put_in_later(self, folder: Path, precious: Path) -> None:
        with Study.open(folder) as study:
            (folder / "worker.log").unlink(missing_ok=True)
            (folder / "worker.log").symlink_to(precious / "notes.txt")
            (folder / "checkpoints").symlink_to(precious)
            with pytest.raises(UnsafePathError):
                study._workspace.store.log_path.open("w")
            with pytest.raises(UnsafePathError):
                study._workspace.store.recover()

    def test_a_link_within_the_folder_is_followed(self, folder: Path) -> None:
        (folder / "artifacts").rename(folder / "weights")
        (folder / "artifacts").symlink_to("weights")
        with Study.open(folder) as study:
            assert study.runs[-1].model().size_bytes > 0

    def test_the_study_itself_may_be_a_link_of_the_users(self, folder: Path) -> None:
        link = folder.with_name("link")
        link.symlink_to(folder)
        assert len(Study.open(link).runs) == 2

    def test_a_pipe(self, folder: Path) -> None:
        os.mkfifo(folder / "worker.log")
        with pytest.raises(UnsafePathError, match="no regular file"):
            Study.open(folder)

    def test_links_of_a_model(self, tmp_path: Path, precious: Path) -> None:
        path = tiny_folder(tmp_path / "model")
        (path / "generation_config.json").unlink(missing_ok=True)
        (path / "generation_config.json").symlink_to(precious / "notes.txt")
        with pytest.raises(UnsafePathError, match="outside"):
            load_model(path)

    def test_links_of_the_hubs_cache(self, tmp_path: Path) -> None:
        path = tmp_path / "models--a--b" / "snapshots" / "0123"
        tiny_folder(path)
        blobs = tmp_path / "models--a--b" / "blobs"
        blobs.mkdir()
        for file in list(path.iterdir()):
            file.rename(blobs / file.name)
            file.symlink_to(f"../../blobs/{file.name}")
        assert load_model(path).n_parameters > 0

    def test_links_and_names_of_a_router(self, tmp_path: Path, precious: Path) -> None:
        path = tmp_path / "router"
        tiny_folder(path / "base-0")
        described: dict[str, Any] = {
            "version": 1,
            "labels": ["a", "b"],
            "thresholds": [0.5],
            "signal": "confidence",
            "sequence_length": 16,
            "tiers": [{"base": "base-0", "weights": "../precious/thesis.safetensors"}] * 2,
        }
        (path / "router.json").write_text(json.dumps(described))
        with pytest.raises(UnsafePathError, match="no plain name"):
            Router.load(path)
        described["tiers"] = [{"base": "../precious", "weights": None}] * 2
        (path / "router.json").write_text(json.dumps(described))
        with pytest.raises(UnsafePathError, match="no plain name"):
            Router.load(path)
        (path / "tier").symlink_to(precious)
        with pytest.raises(UnsafePathError, match="outside"):
            Router.load(path)


class TestJournal:
    def test_names_of_weights(self, folder: Path, precious: Path) -> None:
        outside = "../../precious/thesis"
        change(
            folder,
            "UPDATE runs SET artifact = ?, facts = json_set(facts, '$.artifact', ?)"
            " WHERE artifact IS NOT NULL",
            outside,
            outside,
        )
        change(folder, "UPDATE artifacts SET digest = ?, size_bytes = 1e12, last_used = 0", outside)
        with Study.open(folder) as study:
            run = study.runs[-1]
            for act in (run.model, run.delete, lambda: study._workspace.store.artifact(outside)):
                with pytest.raises(UnsafePathError):
                    act()

    def test_names_of_runs(self, folder: Path, precious: Path) -> None:
        change(folder, "PRAGMA foreign_keys = OFF")
        for id in ("../../precious/notes", "/etc/passwd", "..", "*"):
            last = "(SELECT max(position) FROM runs)"
            change(folder, f"UPDATE runs SET id = ? WHERE position = {last}", id)
            study = Study.open(folder)
            study.table()
            with pytest.raises(WorkbenchError):
                study.runs[-1].outcomes()

    def test_the_data_of_a_task(self, folder: Path, precious: Path) -> None:
        with gzip.open(precious.parent / "other.jsonl.gz", "wt") as stream:
            stream.write("{}\n")
        text = "UPDATE meta SET value = json_set(value, '$.saved.data', ?) WHERE key = 'task'"
        change(folder, text, "../../other.jsonl.gz")
        with pytest.raises(UnsafePathError, match="no plain name"):
            _ = Study.open(folder).task

    def test_a_view_in_place_of_a_table(self, folder: Path) -> None:
        change(folder, "ALTER TABLE models RENAME TO models_")
        change(
            folder,
            "CREATE VIEW models AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM r)"
            " SELECT x AS position, x AS name, x AS description FROM r",
        )
        with pytest.raises(StudyError, match="which no study has"):
            Study.open(folder)

    def test_a_rollback_that_names_another_file(self, folder: Path, precious: Path) -> None:
        name = os.fsencode(precious / "notes.txt")
        tail = name + struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
        (folder / f"{JOURNAL_NAME}-journal").write_bytes(
            bytes.fromhex("d9d505f920a163d7") + bytes(504) + struct.pack(">I", 1) + tail
        )
        with pytest.raises(StudyError, match="could delete"):
            Study.open(folder)

    def test_marks_that_disguise_a_name(self, folder: Path) -> None:
        change(folder, "UPDATE models SET name = 'model\u202egnp.exe'")
        change(folder, "UPDATE runs SET model = 'model\u202egnp.exe'")
        study = Study.open(folder)
        assert "\u202e" not in study.table().to_string() + repr(study)
        assert study.baseline() is not None


PWNED = """
import pathlib
pathlib.Path({target!r}).write_text("run")
def score(*_):
    return 1.0
"""


TERMINAL = "from workbench.cli import main; main()"


class TestMetric:
    @pytest.fixture
    def evil(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A study whose metric names code of the working folder, which must not be run."""
        target = tmp_path / "pwned"
        work = tmp_path / "work"
        work.mkdir()
        (work / "evil_metric.py").write_text(PWNED.format(target=str(target)))
        monkeypatch.chdir(work)
        monkeypatch.syspath_prepend(str(work))
        with toy_study(tmp_path / "study") as study:
            study.run(RTN(4, group_size=8))
        for address in ("evil_metric:score", "pty:spawn"):
            change(
                tmp_path / "study",
                "UPDATE meta SET value = json_set(value, '$.saved.metric_address', ?,"
                " '$.saved.metric_digest', 'of another')  WHERE key = 'task'",
                address,
            )
        yield tmp_path / "study"
        assert not target.exists()
        assert "evil_metric" not in sys.modules

    def test_a_study_opens_and_shows_its_numbers(self, evil: Path) -> None:
        study = Study.open(evil)
        shown = study.table()
        assert shown["mean_loss"].notna().all()
        study.plot()
        assert study.choose(0.5).run is not None
        with pytest.raises(DataError, match=r"metric=mean_loss"):
            study.run(RTN(2, group_size=8))
        with pytest.warns(UserWarning, match="written differently"):
            passed = Study.open(evil, metric=mean_loss)
        assert passed.run(RTN(3, group_size=8)).record.measurement("mean_loss") is not None

    def test_the_terminal_and_the_report_run_nothing(self, evil: Path) -> None:
        for words in (["table"], ["choose", "--accuracy", "0.97"], ["report", "--html", "r.html"]):
            ended = subprocess.run(
                [sys.executable, "-c", TERMINAL, words[0], str(evil), *words[1:]],
                cwd=evil.parent / "work",
                check=False,
                capture_output=True,
                timeout=120,
            )
            assert b"Traceback" not in ended.stderr


class TestModels:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("attn_implementation", "evil/kernel"),
            ("_attn_implementation", "evil/kernel:attention"),
            ("_attn_implementation_internal", "paged|evil/kernel"),
            ("experts_implementation", "evil/kernel"),
            ("text_config", {"attn_implementation": "evil/kernel"}),
            ("use_kernels", True),
            ("kernel_config", {"kernel_mapping": {"RMSNorm": "evil/kernel:Norm"}}),
            ("transformers_weights", "../precious/thesis.safetensors"),
            ("num_hidden_layers", 10**9),
            ("vocab_size", 10**12),
        ],
    )
    def test_what_a_config_must_not_ask_for(self, tmp_path: Path, field: str, value: Any) -> None:
        path = tiny_folder(tmp_path / "model")
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(UnsupportedArchitectureError):
            load_model(path)

    def test_an_adapter_beside_a_model(self, tmp_path: Path) -> None:
        path = tiny_folder(tmp_path / "model")
        (path / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
        with pytest.raises(UnsupportedArchitectureError, match="adapter"):
            load_model(path)

    def test_a_tokenizer_that_names_a_file_elsewhere(self, tmp_path: Path) -> None:
        path = tiny_folder(tmp_path / "model")
        config = json.loads((path / "tokenizer_config.json").read_text())
        about = config | {"tokenizer_file": str(tmp_path / "precious" / "notes.txt")}
        (path / "tokenizer_config.json").write_text(json.dumps(about))
        with pytest.raises(UnsupportedArchitectureError, match="outside of its folder"):
            load_model(path)

    def test_json_that_is_nested_without_end(self, tmp_path: Path) -> None:
        path = tiny_folder(tmp_path / "model")
        (path / "config.json").write_text("[" * 100_000)
        with pytest.raises(ModelNotFoundError, match="not JSON"):
            load_model(path)


class TestNames:
    def test_a_formula_in_the_csv(self, folder: Path) -> None:
        name = '=HYPERLINK("http://evil","x")'
        change(folder, "UPDATE models SET name = ?", name)
        change(folder, "UPDATE runs SET model = ?", name)
        text = csv_of(Study.open(folder).table())
        rows = list(csv.reader(io.StringIO(text)))
        assert len(rows) == 3
        assert [row[1] for row in rows[1:]] == [f"'{name}"] * 2
        assert not any(cell[:1] in ("=", "+", "@") for row in rows for cell in row)

    def test_a_picture_in_the_card(self) -> None:
        name = "![x](http://evil/x.png) <img src=http://evil>\u202e"
        for kept in (plain(name), _code(name)):
            assert "\u202e" not in kept
        kept = plain(name)
        assert not set(kept) & set("[]<>")
        assert "http://" not in kept

    @pytest.mark.parametrize("name", ["a\u202eb", "a\x1b[2Jb", "", "  ", "x" * 5000, 7])
    def test_names_that_are_given(self, tmp_path: Path, name: Any) -> None:
        with pytest.raises(ConfigError):
            toy_task(name=name)
        with toy_study(tmp_path / "study") as study, pytest.raises(ConfigError):
            study.add_model(toy_model(seed=1), name)


class TestWriting:
    def test_a_device_is_not_replaced(self, folder: Path) -> None:
        with Study.open(folder) as study, pytest.raises(ConfigError, match="no regular file"):
            study.report("/dev/null", trust=False)
        assert Path("/dev/null").is_char_device()

    def test_the_home_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = folder.with_name("home")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(folder.parent)
        with Study.open(folder) as study:
            written = study.report("~/r.html", trust=False)
        assert written == home / "r.html"
        assert [one.name for one in home.iterdir()] == ["r.html"]
        assert not Path("~").exists()

    @pytest.mark.parametrize("path", ["", "\0", 7, "/proc/self/mem", "~nobody-has-this-name/x"])
    def test_what_is_no_file(self, path: Any) -> None:
        with pytest.raises((ConfigError, OSError)):
            write_file(path, "text")


class TestBombs:
    def test_outcomes(self, tmp_path: Path) -> None:
        path = tmp_path / "outcomes.npz"
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (40_000_000,)}
        )
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("loss.npy", "w", force_zip64=True) as stream,
        ):
            stream.write(header.getvalue())
            for _ in range(40):
                stream.write(bytes(8_000_000))
        with pytest.raises(DataError, match="expands to more"):
            Outcomes.load(path)

    def test_a_task(self, tmp_path: Path) -> None:
        path = tmp_path / "task.jsonl.gz"
        with gzip.open(path, "wb", compresslevel=1) as stream:
            stream.write(b'{"text": "')
            for _ in range(300):
                stream.write(b"x" * 1_000_000)
        with pytest.raises(DataError, match="expands to more"):
            list(read_snapshot(path))


def task_file(folder: Path, **more: Any) -> Path:
    from tests.harnessed import documents

    (folder / "data.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents(12)))
    about = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": "yes",
        "metric_list": [{"metric": "acc"}],
    }
    path = folder / "task.yaml"
    path.write_text(json.dumps({**about, **more}))  # JSON is YAML
    return path


class TestTaskFiles:
    @pytest.fixture(autouse=True)
    def _needs_the_harness(self) -> None:
        pytest.importorskip("lm_eval")

    def test_aliases(self, tmp_path: Path) -> None:
        from workbench.tasks import HarnessTask

        lines = ["task: mine", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
        path = tmp_path / "bomb.yaml"
        path.write_text("\n".join(lines))
        with pytest.raises(DataError, match="aliases stand for more"):
            HarnessTask(path)
        path.write_text("task: mine\na: &a [*a]\n")
        with pytest.raises(DataError, match="aliases stand for more"):
            HarnessTask(path)

    @pytest.mark.parametrize(
        "template",
        [
            "{{'x'*10**10}}",
            "{{10**(10**8)}}",
            "{{'%999999999d' % 1}}",
            "{{question.ljust(10**8)}}",
            "{{[1]*10**9}}",
            "{{question.__class__.__mro__}}",
        ],
    )
    def test_templates(self, tmp_path: Path, template: str) -> None:
        from workbench.tasks import HarnessTask

        with pytest.raises(DataError):
            HarnessTask(task_file(tmp_path, doc_to_text=template))

    @pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.jsonl", "hf://datasets/a/b.jsonl"])
    def test_addresses_of_data(self, tmp_path: Path, address: str) -> None:
        from workbench.tasks import HarnessTask

        about = {"data_files": {"test": [address]}}
        with pytest.raises(DataError, match="nothing is downloaded"):
            HarnessTask(task_file(tmp_path, dataset_kwargs=about))

    @pytest.mark.parametrize("how", ["absolute", "up", "link", "pattern", "data_dir", "path"])
    def test_data_from_elsewhere(
        self, tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        from workbench.tasks import HarnessTask

        lines = [json.dumps({"question": f"q{i}", "answer": "yes"}) for i in range(30)]
        other = tmp_path / "other"
        other.mkdir()
        (other / "secret.jsonl").write_text("\n".join(lines))
        inner = tmp_path / "tasks"
        inner.mkdir()
        monkeypatch.chdir(inner)
        (inner / "link.jsonl").symlink_to(other / "secret.jsonl")
        named: dict[str, Any] = {
            "absolute": {"data_files": {"test": [str(other / "secret.jsonl")]}},
            "up": {"data_files": {"test": "../other/secret.jsonl"}},
            "link": {"data_files": {"test": "link.jsonl"}},
            "pattern": {"data_files": {"test": "../oth*/*.jsonl"}},
            "data_dir": {"data_dir": str(other)},
            "path": {},
        }
        more = {"dataset_path": str(other)} if how == "path" else {}
        file = task_file(inner, dataset_kwargs=named[how], **more)
        with pytest.raises(DataError, match="outside of its folder and of the working folder"):
            HarnessTask(file)
        if how == "absolute":  # whoever trusts the file has it read
            assert len(HarnessTask(file, trust_remote_code=True).rows["evaluation"]) == 30
            (inner / "own.jsonl").write_text("\n".join(lines))
            own = task_file(inner, dataset_kwargs={"data_files": {"test": "own.jsonl"}})
            assert len(HarnessTask(own).rows["evaluation"]) == 30

    def test_includes_from_elsewhere(self, tmp_path: Path) -> None:
        from workbench.tasks import HarnessTask

        (tmp_path / "secret.yaml").write_text("description: secret")
        inner = tmp_path / "tasks"
        inner.mkdir()
        for other in ("../secret.yaml", str(tmp_path / "secret.yaml")):
            with pytest.raises(DataError, match="outside of its folder"):
                HarnessTask(task_file(inner, include=other))

    def test_a_pipe(self, tmp_path: Path) -> None:
        from workbench.tasks import HarnessTask, LanguageModeling, TextClassification

        for name in ("task.yaml", "texts.txt", "table.csv"):
            os.mkfifo(tmp_path / name)
        for make in (
            lambda: HarnessTask(tmp_path / "task.yaml"),
            lambda: LanguageModeling(tmp_path / "texts.txt"),
            lambda: TextClassification(tmp_path / "table.csv"),
        ):
            with pytest.raises(WorkbenchError):
                make()
