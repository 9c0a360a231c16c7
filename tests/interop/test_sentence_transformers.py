"""Vectors and rankings of an exported sentence encoder are those of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.client import Peer
from tests.tasks.test_vectors import search, sentence_folder
from tests.toy import CALIBRATION
from workbench.models.load import load_model
from workbench.recipes import RTN
from workbench.study import Study

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]


@pytest.mark.parametrize("pooling", ["cls_token", "mean_tokens", "max_tokens", "lasttoken"])
def test_an_export_finds_the_same_documents(peer: Peer, tmp_path: Path, pooling: str) -> None:
    task = search(grades=(1, 1))
    flags = {f"pooling_mode_{pooling}": True, "word_embedding_dimension": 16}
    if pooling != "mean_tokens":
        flags["pooling_mode_mean_tokens"] = False
    model = load_model(sentence_folder(tmp_path / "m", most=60, **flags), device="cpu")
    with Study(model, task, tmp_path / "s", calibration=CALIBRATION) as study:
        run = study.run(RTN(4, group_size=8))
        study.export(run, tmp_path / "x", format="hf")
        bound = run.model()
    queries = {query.id: query.text for query in task.rows["evaluation"]}
    relevant = {q.id: [name for name, _ in q.relevant] for q in task.rows["evaluation"]}
    found = peer.run(
        {
            "retrieve": str(tmp_path / "x"),
            "queries": queries,
            "documents": task.documents,
            "relevant": relevant,
        }
    )
    mine = task.embed(bound, list(task.documents.values()), use="document")
    assert np.allclose(mine, np.array(found["vectors"]), atol=1e-5)
    scores = {key: value for key, value in found["scores"].items() if "dot" not in key}
    for name in ("ndcg_at_10", "mrr_at_10", "recall_at_10"):
        (theirs,) = (value for key, value in scores.items() if key.endswith(name))
        assert run[name] == pytest.approx(theirs, abs=1e-6), name
