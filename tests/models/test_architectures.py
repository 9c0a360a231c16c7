"""Every architecture that is promised to work goes through the whole path."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer
from tests.toy import texts
from workbench.calibration.calibrate import CalibrationInputs, CalibrationOptions, Calibrator
from workbench.compression import folding
from workbench.compression.compress import compress
from workbench.errors import TokenizerMissingError, UnsupportedArchitectureError
from workbench.models.layers import find_blocks, find_linears
from workbench.models.load import load_model, save_model
from workbench.recipes import AWQ, GPTQ, RTN, MagnitudePruning
from workbench.recipes.recipe import Recipe
from workbench.runtime.measure.evaluate import Reference, evaluate
from workbench.storage.artifacts import load_weights, save_weights
from workbench.study import Study
from workbench.tasks import LanguageModeling, Task, TextClassification
from workbench.tensors.linalg import output_error

OPTIONS = CalibrationOptions(
    solve_tokens=1600, judge_tokens=400, sequence_length=20, batch_tokens=1024
)
WITHOUT_TASK = ("ViT",)
ENCODER_DECODERS = ("T5",)  # see test_encoder_decoders.py
ENCODERS = ("Bert", "Roberta", "DistilBert", "DebertaV2", "DebertaV2-own", "ModernBert")
OTHERS = (*WITHOUT_TASK, *ENCODERS, *ENCODER_DECODERS)
DECODERS = tuple(kind for kind in ARCHITECTURES if kind not in OTHERS)
GENERATOR = torch.Generator().manual_seed(0)
ROWS = [torch.randint(4, 260, (18 + i % 3,), generator=GENERATOR).tolist() for i in range(120)]
IDS = torch.randint(4, 260, (2, 12), generator=GENERATOR)
PIXELS = torch.randn(40, 3, 24, 24, generator=GENERATOR)

# Groups of one block, the first, whose scales the layer before absorbs; all else is stored.
FOLDED = {
    "Llama": {"q_proj", "gate_proj", "down_proj"},
    "Llama-MHA-tied": {"q_proj", "o_proj", "gate_proj", "down_proj"},
    "Mistral": {"q_proj", "gate_proj", "down_proj"},
    "Qwen2": {"q_proj", "gate_proj", "down_proj"},
    "Qwen3": {"q_proj", "gate_proj", "down_proj"},
    "Gemma": {"q_proj", "gate_proj", "down_proj"},
    "Gemma2": {"q_proj", "o_proj", "gate_proj", "down_proj"},
    "Gemma3": {"q_proj", "gate_proj", "down_proj"},
    "Phi3": {"o_proj", "qkv_proj", "gate_up_proj", "down_proj"},
    "OPT": {"k_proj", "out_proj", "fc1"},
    "GPT2": {"c_attn", "attn.c_proj", "c_fc"},
    "GPTNeoX": {"query_key_value", "dense_h_to_4h"},
    "Falcon": {"query_key_value"},  # and dense_h_to_4h, which reads the same norm
    "Falcon-sequential": {"query_key_value", "dense_h_to_4h"},
    "Falcon-new": {"query_key_value", "dense_h_to_4h"},
    "Mixtral": {"q_proj", "o_proj", *(f"down_proj.{i}" for i in range(4))},
    "Qwen2Moe": {"q_proj", "shared_expert.down_proj", *(f"down_proj.{i}" for i in range(8))},
    "Qwen3Moe": {"q_proj", "gate_proj", "down_proj"},  # the first block has no experts
    "Bert": {"output.dense"},
    "Roberta": {"output.dense"},
    "DistilBert": {"out_lin"},
    "DebertaV2": {"output.dense"},
    "DebertaV2-own": {"output.dense"},
    "ModernBert": {"attn.Wo", "mlp.Wi", "mlp.Wo"},  # the first block has no norm before Wqkv
    "T5": {"q", "o", "wi_0", "wo"},
    "ViT": {"q_proj", "o_proj", "fc1"},
}


class RowsTask:
    """Stands in for a task: token rows of different lengths."""

    name = "rows"
    fingerprint = "rows-of-architectures"

    def calibration_windows(self, model, *, sequence_length, seed):
        return ROWS

    calibration_examples = Task.calibration_examples


def lively_model(kind, seed=0):
    """A tiny model whose norms, biases and experts differ as in a trained one."""
    hf_model = tiny_model(kind, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in hf_model.named_parameters():
            noise = 0.6 * torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.mul_(1 if kind == "T5" else 3)  # T5 does not scale attention scores
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:  # a norm's weight: Gemma's are what is added to one
                parameter.copy_(noise.exp() - (1 if kind.startswith("Gemma") else 0))
    return hf_model


def loaded(kind):
    tokenizer = None if kind == "ViT" else tiny_tokenizer()
    return load_model(lively_model(kind), tokenizer, device="cpu")


@torch.no_grad()
def outputs(model):
    hf_model = model.hf_model
    if hf_model.main_input_name == "pixel_values":
        return hf_model(PIXELS[:2])[0]
    extra = {"decoder_input_ids": IDS} if hf_model.config.is_encoder_decoder else {}
    return hf_model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **extra)[0]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request, tmp_path_factory):
    """One architecture and its statistics."""
    kind = request.param
    data = RowsTask()
    if kind == "ViT":
        data = CalibrationInputs([{"pixel_values": some} for some in PIXELS.split(8)])
    calibrator = Calibrator(data, OPTIONS, folder=tmp_path_factory.mktemp(kind))
    model = loaded(kind)
    return SimpleNamespace(
        kind=kind, model=model, calibrator=calibrator, statistics=calibrator.statistics(model)
    )


def compressed(case, step):
    return compress(case.model, Recipe.of(step), case.calibrator)


def test_nearly_all_block_weights_are_compressed_and_come_back_from_disk(case, tmp_path):
    result = compressed(case, RTN(4, group_size=16))
    assert set(result.model.weights) == set(find_linears(case.model.hf_model))
    blocks = find_blocks(case.model.hf_model).values()
    matrices = sum(p.numel() for block in blocks for p in block.parameters() if p.ndim > 1)
    covered = sum(w.shape[0] * w.shape[1] for w in result.model.weights.values())
    assert covered >= 0.99 * matrices
    assert covered == pytest.approx(result.facts["compressed_share"] * case.model.n_parameters)
    assert result.model.size_bytes < case.model.size_bytes
    assert set(result.facts["layer_errors"]) == set(result.model.weights)
    kept = result.facts["kept_dense"]
    every = {n: p for n, p in case.model.hf_model.named_parameters() if p.ndim > 1}
    assert covered + sum(kept.values()) == sum(p.numel() for p in every.values())
    blocks = tuple(f"{name}." for name in find_blocks(case.model.hf_model))
    inside = {n.rpartition(".")[0].rpartition(".")[2] for n in kept if n.startswith(blocks)}
    assert inside <= {"gate", "shared_expert_gate", "relative_attention_bias"}

    path = tmp_path / "weights.safetensors"
    digest = save_weights(path, result.model)
    restored = load_weights(path, case.model)
    assert save_weights(tmp_path / "again.safetensors", restored) == digest
    assert torch.equal(outputs(restored), outputs(result.model))
    assert restored.size_bytes == result.model.size_bytes
    header = 200 * (len(restored.hf_model.state_dict()) + 3 * len(restored.weights)) + 4000
    assert 0 <= path.stat().st_size - restored.size_bytes < header


def test_gptq_has_less_output_error_than_rounding_in_every_layer(case):
    rounded = compressed(case, RTN(3, group_size=16)).model
    result = compressed(case, GPTQ(3, group_size=16))
    assert "undersampled" not in result.facts
    worse = {}
    for group in case.statistics.groups:
        gram = case.statistics[group.key].solve.gram
        for name in group.names:
            dense = case.model.site(name).matrix
            errors = [
                float(output_error(model.site(name).matrix - dense, gram).sum())
                for model in (result.model, rounded)
            ]
            if not errors[0] < errors[1]:
                worse[name] = errors
    assert not worse
    logits = outputs(result.model)
    assert bool(torch.isfinite(logits).all())
    assert not torch.equal(logits, outputs(case.model))


def test_awq_folds_where_that_is_exact(case, monkeypatch):
    """The same model with its scales stored beside the layers gives the same outputs."""
    folded = compressed(case, AWQ(8, group_size=16))
    monkeypatch.setattr(folding, "find_fold", lambda *_: None)
    stored = compressed(case, AWQ(8, group_size=16))
    assert "scales_folded" not in stored.facts

    first = case.statistics.groups[0].block
    names = {
        group.key
        for group in case.statistics.groups
        if group.block == first and folded.model.weights[group.key].input_scales is None
    }
    expected = FOLDED[case.kind]
    assert {e for e in expected if any(n.endswith("." + e) for n in names)} == expected
    assert len(names) == len(expected), names
    assert folded.model.size_bytes < stored.model.size_bytes
    spread = [
        float(w.input_scales.max() / w.input_scales.min()) for w in stored.model.weights.values()
    ]
    assert max(spread) > 2, "scales near one would hide a wrong fold"
    # 8 bits and float32 storage: what differs is the rounding of scales to float16.
    reference = outputs(stored.model)
    assert float((outputs(folded.model) - reference).abs().max()) < 0.02 * float(reference.std())


def test_magnitude_pruning_keeps_the_logits_finite(case):
    result = compressed(case, MagnitudePruning(0.5))
    assert result.facts["zero_share"] == pytest.approx(0.5, abs=0.01)
    assert bool(torch.isfinite(outputs(result.model)).all())


def test_length_and_kind(case):
    unlimited = case.kind in (*WITHOUT_TASK, *ENCODER_DECODERS)  # T5 knows relative positions alone
    assert case.model.max_length == (None if unlimited else 64)
    assert case.model.is_decoder == (case.kind in DECODERS)


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind not in WITHOUT_TASK])
def test_saved_and_loaded_from_a_folder(kind, tmp_path):
    hf_model = lively_model(kind)
    with torch.no_grad():
        for parameter in hf_model.parameters():
            parameter.copy_(parameter.half())
    expected = outputs(load_model(hf_model, tiny_tokenizer(), device="cpu"))
    hf_model.half().save_pretrained(tmp_path / "theirs")
    tiny_tokenizer().save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs", device="cpu")
    assert model.stored_dtype == torch.float16
    assert torch.equal(outputs(model), expected)
    save_model(model, tmp_path / "ours")
    assert load_model(tmp_path / "ours", device="cpu").fingerprint == model.fingerprint


@pytest.fixture(scope="module")
def language_task():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LanguageModeling(texts(12), sequence_length=32, max_evaluation_tokens=200)


@pytest.fixture(scope="module")
def classification_task():
    rows = [
        {"text": f"{colour} number {i}", "label": colour}
        for i in range(40)
        for colour in ("red", "blue")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TextClassification(rows)


def values(evaluation):
    return {m.metric: m.value for m in evaluation.measurements}


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_are_evaluated_on_language_modelling(kind, language_task):
    model = loaded(kind)
    reference = Reference(model, language_task)
    dense = evaluate(model, language_task, reference=reference)
    rounded = compress(model, Recipe.of(RTN(4, group_size=16))).model
    other = evaluate(rounded, language_task, reference=reference)
    assert np.isfinite(values(dense)["perplexity"])
    assert values(dense)["kl"] == 0
    assert values(other)["kl"] > 0


@pytest.mark.parametrize("kind", [*ENCODERS, "Llama", "Mixtral"])
def test_encoders_are_evaluated_on_classification(kind, classification_task):
    model = classification_task.bind(loaded(kind))
    rounded = compress(model, Recipe.of(RTN(8, group_size=16))).model
    reference = Reference(classification_task.bind(model), classification_task)
    measured = values(evaluate(rounded, classification_task, reference=reference))
    assert 0 <= measured["accuracy"] <= 1
    assert 0 < measured["kl"] < 1


@pytest.mark.parametrize("kind", WITHOUT_TASK)
def test_without_a_task_there_is_no_study(kind, classification_task, language_task, tmp_path):
    model = loaded(kind)
    match = "no task yet.*calibrate.. and compress.. take"
    with pytest.raises(UnsupportedArchitectureError, match=match):
        Study(model, language_task, tmp_path / "study")
    with pytest.raises(UnsupportedArchitectureError, match=match):
        classification_task.bind(model)
    tiny_model(kind).save_pretrained(tmp_path / "folder")
    with pytest.raises(UnsupportedArchitectureError, match=match):
        load_model(tmp_path / "folder")


def test_a_live_model_that_reads_text_needs_its_tokenizer():
    with pytest.raises(TokenizerMissingError):
        load_model(tiny_model("T5"))
