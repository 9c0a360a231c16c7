from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import tiny_folder, tiny_model, tiny_tokenizer
from workbench.calibration.calibrate import CalibrationOptions, Calibrator
from workbench.compression.compress import compress
from workbench.demo.tasks import demo_documents
from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.export import offers
from workbench.models import placement
from workbench.models.load import LoadedModel, load_model, save_model
from workbench.prediction.tabulate import tabulate
from workbench.recipes import AWQ, GPTQ, FineTuning, Wanda
from workbench.recipes.recipe import Recipe
from workbench.runtime.measure.evaluate import evaluate
from workbench.runtime.packed import pack_model
from workbench.storage.artifacts import load_weights, save_weights
from workbench.tasks import LanguageModeling

OPTIONS = CalibrationOptions(solve_tokens=1024, judge_tokens=512, sequence_length=128)


def both(folder: Path | str, **options: Any) -> tuple[LoadedModel, LoadedModel]:
    return (
        load_model(folder, memory="resident", **options),
        load_model(folder, memory="streamed", **options),
    )


def stored_in(folder: Path, dtype: torch.dtype, architecture: str) -> Path:
    """Return a folder with a tiny random model in several files."""
    torch.manual_seed(0)
    tiny_model(architecture).to(dtype).save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "architecture",
    [
        "LlamaForCausalLM",
        "OPTForCausalLM",
        "GPT2LMHeadModel",
        "BertModel",
        "BartForConditionalGeneration",
        "RobertaForSequenceClassification",
    ],
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
    texts = {part: [text for _, text in rows] for part, rows in demo_documents().items()}
    task = LanguageModeling(**texts, sequence_length=128, max_evaluation_tokens=2048)
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
    assert streamed.fingerprint == before
    assert not streamed.weights


def test_what_needs_all_weights_says_so_and_names_what_does_not(
    demo: tuple[LoadedModel, LoadedModel, LanguageModeling], tmp_path: Path
) -> None:
    _, model, task = demo
    calibrator = Calibrator(task, OPTIONS, folder=tmp_path)
    refused: list[Any] = [
        lambda: compress(model, Recipe.of(FineTuning()), calibrator),
        lambda: compress(model, Recipe.of(GPTQ(4, sequential=True)), calibrator),
        lambda: tabulate(model, calibrator, tmp_path / "table.json"),
        lambda: save_model(model, tmp_path / "saved"),
        lambda: pack_model(model),
    ]
    for use in refused:
        with pytest.raises(ConfigError, match=r"GPTQ, AWQ.*memory=\"resident\""):
            use()
    assert all('memory="resident"' in str(offer.refusal) for offer in offers(model))


def test_auto_streams_what_would_not_fit_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder(tmp_path / "m")
    assert load_model(folder).streaming is None
    assert load_model(folder, memory_budget=1e4).streaming is not None
    monkeypatch.setattr(placement, "free_memory", lambda device: 10_000)
    assert load_model(folder).streaming is not None


def test_options_that_are_not_accepted(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    with pytest.raises(ConfigError, match="memory='disk' is not accepted; give 'auto'"):
        load_model(folder, memory="disk")
    with pytest.raises(ConfigError, match="memory_budget=-1 is not accepted; give bytes"):
        load_model(folder, memory_budget=-1)
    with pytest.raises(ConfigError, match="live model is in memory already"):
        load_model(tiny_model(), tiny_tokenizer(), memory="streamed")
    state = tiny_model().state_dict()
    state["model.norm.weight"] = state["model.norm.weight"].to(torch.bfloat16)
    tiny_model().save_pretrained(folder, state_dict=state)
    with pytest.raises(UnsupportedArchitectureError, match=r"several dtypes.*resident"):
        load_model(folder, memory="streamed")


MEASURE = """
import sys, torch
from workbench.compression.compress import compress
from workbench.models.load import load_model
from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe

def own():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

load_model(sys.argv[1], memory="streamed")  # imports what takes memory of its own
before = own()
model = load_model(sys.argv[1], memory=sys.argv[2])
ids = torch.arange(8)[None]
with torch.no_grad():
    model.hf_model(input_ids=ids)
loaded = own() - before
compressed = compress(model, Recipe.of(RTN(4))).model
with torch.no_grad():
    compressed.hf_model(input_ids=ids)
print(loaded, own() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it")
def test_the_weights_take_no_memory_of_the_process(tmp_path: Path) -> None:
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=10,
        num_attention_heads=8,
        vocab_size=260,
    )
    model = LlamaForCausalLM(config)
    values = sum(p.numel() for p in model.parameters())
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    del model
    used = {}
    for memory in ("resident", "streamed"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), memory]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used[memory] = [int(number) for number in output.split()]
    assert used["resident"][0] > 4 * values  # all of it, in float32
    assert used["streamed"][0] < 1.5 * values  # a block of ten, and what an allocator keeps
    assert used["streamed"][1] < 3 * values  # a byte per code, and a block
    assert used["resident"][1] > 8 * values  # itself, a copy and the codes
