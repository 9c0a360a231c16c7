"""Models of a changed configuration, on disk and in a study."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.structured import loaded, outputs, run
from tests.toy import toy_study
from workbench.errors import ConfigError, UnsupportedArchitectureError
from workbench.models.load import load_model, save_model
from workbench.models.loaded import ClassificationHead, tensor_identity
from workbench.models.structure import ARCHITECTURES, rebuild
from workbench.recipes import (
    GPTQ,
    STEPS,
    Cast,
    DepthPruning,
    MagnitudePruning,
    QuantizeEmbeddings,
    WidthPruning,
    step_from_dict,
)
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.storage.artifacts import load_weights, save_weights

KINDS = [
    "Llama",
    "Llama-MHA-tied",
    "Gemma3",
    "Phi3",
    "OPT",
    "GPT2",
    "Bert",
    "Roberta",
    "ModernBert",
]
RECIPES = {
    "depth": [DepthPruning(1)],
    "width": [WidthPruning(0.25)],
    "both": [DepthPruning(1), WidthPruning(0.25)],
    "gptq": [WidthPruning(0.25), GPTQ(4, group_size=8)],
    "cast": [Cast("bfloat16"), WidthPruning(0.25)],
    "embeddings": [QuantizeEmbeddings(8), DepthPruning(1)],
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_artifacts_round_trip(kind, recipe, tmp_path):
    model = loaded(kind)
    before = {name: tensor.clone() for name, tensor in model.hf_model.state_dict().items()}
    made = run(model, RECIPES[recipe], tmp_path).model
    path = tmp_path / "weights.safetensors"
    digest = save_weights(path, made)
    restored = load_weights(path, model)
    assert torch.equal(outputs(restored), outputs(made))
    assert restored.fingerprint == made.fingerprint != model.fingerprint
    assert restored.structure == made.structure
    assert restored.size_bytes == made.size_bytes
    assert save_weights(tmp_path / "again", restored) == digest
    assert path.stat().st_size - made.size_bytes == pytest.approx(0, abs=12_000), "header only"
    assert model.structure == {}
    for name, tensor in model.hf_model.state_dict().items():
        assert torch.equal(tensor, before[name]), "the given model was changed"


@pytest.mark.parametrize("recipe", ["depth", "width", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_dense_checkpoint_loads_as_a_model_of_its_own(kind, recipe, tmp_path):
    made = run(loaded(kind), RECIPES[recipe], tmp_path).model
    again = load_model(save_model(made, tmp_path / "model"))
    assert torch.allclose(outputs(again), outputs(made), atol=1e-6)
    assert again.fingerprint == made.fingerprint
    assert (again.n_parameters, again.size_bytes) == (made.n_parameters, made.size_bytes)
    assert again.structure == {}
    if again.is_decoder:
        assert again.generate("abc", max_new_tokens=4) == made.generate("abc", max_new_tokens=4)


def test_a_checkpoint_with_fewer_heads_loads(tmp_path):
    """The configuration of Qwen2 has no head size of its own; it is written and read back."""
    for kind in ("Llama", "Qwen2", "Phi3", "Gemma2"):
        made = run(loaded(kind), WidthPruning(0.5, heads=True), tmp_path / kind).model
        again = load_model(save_model(made, tmp_path / kind / "model"))
        assert torch.allclose(outputs(again), outputs(made), atol=1e-6)


def test_what_belongs_to_the_model_stays(tmp_path):
    model = loaded("Llama-MHA-tied")
    head = ClassificationHead(torch.randn(2, 32), torch.zeros(2), ("a", "b"))
    model = dataclasses.replace(model, head=head, stored_dtype=torch.bfloat16)
    model.hf_model.generation_config.max_length = 33
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made = run(model, [DepthPruning(1), WidthPruning(0.25)], tmp_path).model
    assert torch.equal(torch.rand(3), expected), "the user's random numbers were used up"
    hf_model = made.hf_model
    assert tensor_identity(hf_model.lm_head.weight) == tensor_identity(
        hf_model.model.embed_tokens.weight
    )
    assert hf_model.lm_head.weight is hf_model.model.embed_tokens.weight
    assert made.n_parameters == sum(p.numel() for p in hf_model.parameters()) + 66
    assert made.size_bytes == 2 * made.n_parameters
    assert made.head is head
    assert made.stored_dtype == torch.bfloat16
    assert made.source is model.source
    assert not hf_model.training
    assert not any(p.requires_grad for p in hf_model.parameters())
    assert hf_model.generation_config.max_length == 33
    assert made.structure == {"num_hidden_layers": 1, "intermediate_size": 36}
    down = hf_model.model.layers[0].mlp.down_proj.weight
    assert torch.equal(down, down.bfloat16().float()), "computed with other weights than stored"


def test_half_precision_stays_half_precision(tmp_path):
    model = loaded("Llama")
    half = load_model(model.hf_model, model.tokenizer, device="cpu", dtype="bfloat16")
    made = run(half, [DepthPruning(1), WidthPruning(0.25)], tmp_path).model
    assert {p.dtype for p in made.hf_model.parameters()} == {torch.bfloat16}
    assert made.hf_model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_missing_pooler_stays_missing(tmp_path):
    model = loaded("BertForMaskedLM")
    assert model.hf_model.pooler is None
    assert run(model, DepthPruning(1), tmp_path).model.hf_model.pooler is None


def test_tensors_that_do_not_fit_are_named():
    model = loaded("Llama")
    tensors = model.hf_model.state_dict()
    with pytest.raises(UnsupportedArchitectureError, match=r"gate_proj.weight \(48, 32\), exp"):
        rebuild(model, {"intermediate_size": 32}, tensors)
    with pytest.raises(UnsupportedArchitectureError, match=r"1 of its tensors .*norm\.weight"):
        rebuild(model, {}, {k: v for k, v in tensors.items() if k != "model.norm.weight"})
    with pytest.raises(UnsupportedArchitectureError, match="does not accept"):
        rebuild(model, {"num_attention_heads": 3}, tensors)
    tied = loaded("Llama-MHA-tied")
    tensors = {name: t.clone() for name, t in tied.hf_model.state_dict().items()}
    tensors["lm_head.weight"] += 1
    with pytest.raises(UnsupportedArchitectureError, match="does not take 1 of its tensors"):
        rebuild(tied, {}, tensors)


def test_blocks_the_configuration_does_not_know_are_refused(tmp_path):
    model = loaded("Llama")
    model.hf_model.config.num_hidden_layers = 3
    with pytest.raises(UnsupportedArchitectureError, match=r"has 2 blocks .* states 3"):
        run(model, WidthPruning(0.25), tmp_path)


def test_the_table_names_what_exists():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert set(ARCHITECTURES) <= set(CONFIG_MAPPING_NAMES)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WidthPruning(0.0), "ratio=0.0 is not accepted; give a number from 0.01 to 0.95"),
        (lambda: WidthPruning(1.0), "from 0.01 to 0.95"),
        (lambda: WidthPruning(neurons=False), "nothing to remove"),
        (lambda: WidthPruning(criterion="wanda"), "one of 'activation', 'random'"),
        (lambda: DepthPruning(0), "n_blocks=0 .* at least 1|from 1"),
        (lambda: DepthPruning(2, criterion="first"), "'loss', 'influence', 'last', 'random'"),
        (lambda: Recipe.of([GPTQ(4), DepthPruning(1)]), "cannot follow GPTQ"),
        (lambda: Recipe.of([MagnitudePruning(0.5), WidthPruning(0.5)]), "Put WidthPruning first"),
    ],
)
def test_bad_values_say_what_is_accepted(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_labels_and_json():
    steps = [
        DepthPruning(1, criterion="random"),
        DepthPruning(),
        WidthPruning(0.5, compensate=False),
        WidthPruning(0.25, heads=True),
        WidthPruning(0.25, neurons=False, heads=True, criterion="random"),
    ]
    assert [step.label for step in steps] == [
        "Depth −1 block (random)",
        "Depth −2 blocks",
        "Width −50% not refitted",
        "Width −25% with heads",
        "Width −25% heads (random)",
    ]
    assert [step_from_dict(step.to_dict()) for step in steps] == steps
    assert {"DepthPruning", "WidthPruning"} <= set(STEPS)


@pytest.mark.parametrize("recipe", ["both", "gptq", "depth"])
def test_a_study_runs_evicts_and_makes_them_again(recipe, tmp_path):
    study = toy_study(tmp_path / "study")
    run = study.run(RECIPES[recipe])
    assert run.state is RunState.DONE, run.error
    measured = {m.metric: m.value for m in run.measurements}
    assert measured["kl"] > 0
    facts = run.record.facts
    assert len(facts["structure"]) == sum(
        isinstance(step, (DepthPruning, WidthPruning)) for step in RECIPES[recipe]
    )
    assert ("calibration_tokens" in facts) == (recipe == "gptq")
    assert facts["calibration"]["solve_tokens"] == 512
    model = study.model(run)
    assert model.size_bytes == run.size_bytes < study.run([]).size_bytes
    if recipe == "gptq":
        assert facts["compressed_share"] > 0.1
        assert set(facts["layer_errors"]) == set(model.weights)
    path = study._workspace.store.artifact(facts["artifact"])
    path.unlink()
    again = study.model(run)  # solved again, and checked by its digest
    assert path.exists()
    assert again.fingerprint == model.fingerprint
    reopened = type(study).open(tmp_path / "study")
    assert reopened.model(reopened.runs[-1]).fingerprint == model.fingerprint
