from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.tiny import tiny_folder, tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import CalibrationOptions, Calibrator
from workbench.compression.compress import compress
from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.export import offers
from workbench.models import placement
from workbench.models.load import LoadedModel, load_model, save_model
from workbench.prediction.tabulate import tabulate
from workbench.recipes import AWQ, GPTQ, RTN, FineTuning, Wanda
from workbench.recipes.recipe import Recipe
from workbench.runtime.measure.evaluate import evaluate
from workbench.runtime.packed import pack_model
from workbench.storage.artifacts import load_weights, save_weights
from workbench.tasks import LanguageModeling, load_task

OPTIONS = CalibrationOptions(solve_tokens=1024, judge_tokens=512, sequence_length=128)


def both(folder: Path | str, **options: Any) -> tuple[LoadedModel, LoadedModel]:
    return (
        load_model(folder, memory="resident", **options),
        load_model(folder, memory="streamed", **options),
    )


def stored_in(folder: Path, dtype: torch.dtype, architecture: str, **more: Any) -> Path:
    """Return a folder with a tiny random model in several files."""
    torch.manual_seed(0)
    tiny_model(architecture).to(dtype).save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "architecture",
    ["LlamaForCausalLM", "OPTForCausalLM", "GPT2LMHeadModel", "BertModel"]
    + ["BartForConditionalGeneration", "RobertaForSequenceClassification"],
)
def test_a_streamed_model_is_the_resident_one(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = stored_in(tmp_path / "m", dtype, architecture)
    resident, streamed = both(folder)
    assert streamed.fingerprint == resident.fingerprint
    assert streamed.dtype == resident.dtype == torch.float32
    assert streamed.size_bytes == resident.size_bytes
    assert streamed.n_parameters == resident.n_parameters
    ids = torch.arange(3, 19).reshape(2, 8)
    with torch.no_grad():
        ours, theirs = (m.hf_model(input_ids=ids)[0] for m in (streamed, resident))
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_it_computes_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    folder = stored_in(tmp_path / "m", torch.bfloat16, "LlamaForCausalLM")
    resident, streamed = both(folder, dtype="bfloat16")
    assert streamed.dtype == torch.bfloat16
    ids = torch.arange(3, 19).reshape(2, 8)
    with torch.no_grad():
        ours, theirs = (m.hf_model(input_ids=ids).logits for m in (streamed, resident))
    assert torch.equal(ours, theirs)


@pytest.fixture(scope="module")
def demo() -> tuple[LoadedModel, LoadedModel, LanguageModeling]:
    task = load_task("demo", max_evaluation_tokens=2048)
    resident, streamed = both("demo")
    return task.bind(resident), task.bind(streamed), task


@pytest.mark.parametrize("step", [GPTQ(3), AWQ(4), Wanda(0.5)])
def test_compressing_and_evaluating_it_gives_the_same(
    step: Any, demo: tuple[LoadedModel, LoadedModel, LanguageModeling], tmp_path: Path
) -> None:
    resident, streamed, task = demo
    calibrator = Calibrator(task, OPTIONS, folder=tmp_path)
    before = streamed.fingerprint
    results = [compress(m, Recipe.of(step), calibrator) for m in (resident, streamed)]
    ours, theirs = (result.model for result in reversed(results))
    digests = [save_weights(tmp_path / f"{i}", model) for i, model in enumerate((ours, theirs))]
    assert digests[0] == digests[1]
    assert ours.fingerprint == theirs.fingerprint != before
    assert ours.size_bytes == theirs.size_bytes
    assert results[1].facts == results[0].facts
    found = [evaluate(m, task) for m in (ours, theirs, load_weights(tmp_path / "0", streamed))]
    for evaluation in found[1:]:
        for one, other in zip(evaluation.measurements, found[0].measurements, strict=True):
            assert one.value == pytest.approx(other.value, abs=1e-6, rel=1e-6)
    assert streamed.fingerprint == before and not streamed.weights
