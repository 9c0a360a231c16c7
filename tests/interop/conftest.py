"""The foreign loaders' process, and a study of the bundled model that is exported to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.client import Peer
from tests.interop.windows import Windows, windows_of
from tests.toy import CALIBRATION, toy_task
from workbench.models.load import load_model
from workbench.study import Study
from workbench.tasks import load_task

PYTHON = "WORKBENCH_INTEROP_PYTHON"


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """The loaders. Without them nothing here says anything, so that is a failure, not a skip."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.fail(f"{PYTHON} names no interpreter; run these tests with: make test-peers")
    log = tmp_path_factory.mktemp("peer") / "peer.log"
    worker = Path(__file__).with_name("worker.py")
    with Peer(Path(python), threads=1, log=log, worker=worker, name="the loaders") as started:
        yield started


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The bundled model on the bundled task."""
    return Study("demo", "demo", tmp_path_factory.mktemp("interop") / "study")


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The bundled model on a toy task: runs in a second, where only the weights matter."""
    folder = tmp_path_factory.mktemp("interop") / "quick"
    return Study("demo", toy_task(), folder, calibration=CALIBRATION)


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    """All evaluation windows, those that the study's perplexity is of."""
    examples = load_task("demo").examples(load_model("demo"), "evaluation")
    path = tmp_path_factory.mktemp("windows") / "all.json"
    return windows_of(path, [example.tokens for example in examples])


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    """A few of them, where our own model is asked too."""
    examples = load_task("demo").examples(load_model("demo"), "evaluation", limit=6)
    path = tmp_path_factory.mktemp("windows") / "few.json"
    return windows_of(path, [example.tokens for example in examples])
