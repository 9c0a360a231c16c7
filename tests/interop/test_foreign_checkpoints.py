"""Checkpoints that other programs made, read with torch alone: the same perplexity as theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.client import Peer
from tests.interop.windows import Windows, perplexity
from tests.toy import CALIBRATION, toy_task
from workbench.models.load import load_model, save_model
from workbench.study import Study
from workbench.tensors.weights import PermutedWeight, QuantizedWeight

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

TOLERANCE = 0.003


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(load_model("demo"), tmp_path_factory.mktemp("dense"), lossless=False)


@pytest.mark.parametrize(
    ("maker", "options", "kind"),
    [
        ("gptqmodel", {"bits": 4, "group_size": 64, "sym": True}, QuantizedWeight),
        (
            "gptqmodel",
            {"bits": 4, "group_size": 128, "desc_act": True, "act_group_aware": False},
            PermutedWeight,
        ),
        (
            "gptqmodel",
            {"bits": 4, "group_size": 64, "quant_method": "awq", "format": "gemm", "sym": False},
            QuantizedWeight,
        ),
        (
            "llmcompressor",
            {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group"}
            | {"group_size": 64},
            QuantizedWeight,
        ),
        (
            "llmcompressor",
            {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
            QuantizedWeight,
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_foreign_checkpoint(
    maker: str,
    options: dict[str, Any],
    kind: type,
    peer: Peer,
    few: Windows,
    dense: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "made"
    request = {"make": maker, "model": str(dense), "folder": str(folder), "options": options}
    peer.run({**request, "windows": str(few.path), "actorder": "static"})
    model = load_model(folder)
    assert {type(weight) for weight in model.weights.values()} == {kind}
    assert len(model.weights) == 56
    found = few.perplexity(model)
    assert found == pytest.approx(perplexity(peer, "transformers", folder, few), rel=TOLERANCE)
    assert found != few.perplexity(load_model("demo"))


def test_a_study_compares_it_and_compresses_it_further(
    peer: Peer, few: Windows, dense: Path, tmp_path: Path
) -> None:
    from workbench.recipes import RTN

    folder = tmp_path / "made"
    options = {"bits": 4, "group_size": 128, "sym": True}
    request = {"make": "gptqmodel", "model": str(dense), "folder": str(folder)}
    peer.run({**request, "options": options, "windows": str(few.path)})
    study = Study("demo", toy_task(), tmp_path / "study", calibration=CALIBRATION)
    name = study.add_model(folder, "gptqmodel 4-bit")
    baseline = study.run([], model=name)
    assert baseline.size_bytes is not None
    assert baseline.size_bytes < 0.4 * (study.run([]).size_bytes or 0)
    smaller = study.run(RTN(3), model=name)
    assert smaller.size_bytes is not None
    assert smaller.size_bytes < baseline.size_bytes
