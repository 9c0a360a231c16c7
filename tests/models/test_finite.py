"""A value that is not a number never becomes a score: the run fails and names the layer."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from tests.quantized import quantized
from tests.tiny import tiny_model, tiny_tokenizer
from tests.toy import texts
from workbench.compression.compress import compress
from workbench.errors import NotFiniteError
from workbench.models.finite import check_weight, finite_outputs, is_finite
from workbench.models.load import LoadedModel, load_model
from workbench.recipes import RTN, Cast, MagnitudePruning, QuantizeEmbeddings
from workbench.recipes.recipe import Recipe
from workbench.runtime.measure.evaluate import evaluate
from workbench.study import Study
from workbench.tasks import LanguageModeling, TextClassification

NAME = "model.layers.1.mlp.up_proj"
ROWS = [{"text": f"{word} number {i}", "label": word} for i in range(30) for word in "ab"]


def language() -> LanguageModeling:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LanguageModeling(texts(12), sequence_length=32, max_evaluation_tokens=200)


def model_with(value: float, name: str = f"{NAME}.weight", kind: str = "Llama") -> LoadedModel:
    """Return a tiny model with one such number in a parameter."""
    hf_model = tiny_model(kind)
    hf_model.get_parameter(name).data.view(-1)[7] = value
    return load_model(hf_model, tiny_tokenizer(), device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "step", [RTN(4), MagnitudePruning(0.5), QuantizeEmbeddings(8)], ids=lambda step: step.title
)
def test_a_weight_that_is_not_finite_is_not_rounded_away(step: object, value: float) -> None:
    name = "model.embed_tokens" if isinstance(step, QuantizeEmbeddings) else NAME
    with pytest.raises(NotFiniteError, match=rf"1 of [\d,]+ weights of {name} are not finite"):
        compress(model_with(value, f"{name}.weight"), Recipe.of(step))


def test_cast_to_float16_that_overflows_names_the_layer() -> None:
    model = model_with(1e5)
    with pytest.raises(NotFiniteError, match=f"of {NAME}.weight are not finite in float16"):
        compress(model, Recipe.of(Cast("float16")))
    assert compress(model, Recipe.of(Cast("bfloat16"))).model.stored_dtype == torch.bfloat16


def test_a_weight_whose_scale_overflows_is_not_cut_off() -> None:
    with pytest.raises(NotFiniteError, match=f"{NAME}.*A scale of 2e.08 does not fit into float16"):
        compress(model_with(3e9), Recipe.of(RTN(4)))


def test_compressed_weights_are_checked_when_they_are_put_in_place() -> None:
    model = model_with(1.0)
    weight = quantized(64, 32, RTN(4).scheme)
    weight.scales[3] = float("inf")
    with pytest.raises(NotFiniteError, match=f"of {NAME} are not finite once it is compressed"):
        model.set_weight(NAME, weight)
    assert is_finite(model.hf_model.get_submodule(NAME).weight)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("model.layers.0.self_attn.o_proj.weight", "the weight model.layers.0.self_attn.o_proj"),
        ("model.norm.weight", "the weight model.norm.weight is not"),
    ],
)
def test_an_evaluation_fails_and_names_the_weight(name: str, match: str) -> None:
    with pytest.raises(NotFiniteError, match=match):
        evaluate(model_with(float("nan"), name), language())


def test_the_first_layer_whose_output_overflows_is_named() -> None:
    model = load_model(tiny_model("Llama"), tiny_tokenizer(), dtype="float16", device="cpu")
    layer = model.hf_model.get_submodule(NAME)
    layer.weight.data.fill_(6e4)  # every weight is finite, the sum of products is not
    with pytest.raises(NotFiniteError, match=f"{NAME} is the first layer .* in float16"):
        evaluate(model, language())


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "Llama"])
def test_a_classifier_fails_before_a_head_is_fitted_or_scored(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = TextClassification(ROWS)
    hf_model = tiny_model(kind)
    norm = [n for n, _ in hf_model.named_parameters() if "norm" in n.lower()][1]
    hf_model.get_parameter(norm).data.fill_(float("nan"))
    model = load_model(hf_model, tiny_tokenizer(), device="cpu")
    with pytest.raises(NotFiniteError, match=norm):
        evaluate(task.bind(model), task)


def test_padding_and_classes_that_are_ruled_out_are_no_failure() -> None:
    model = load_model(tiny_model("Llama"), tiny_tokenizer(), device="cpu")
    ids = torch.randint(4, 260, (2, 6))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0

    def spoil(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        output[..., 3] = -float("inf")  # a token that is never written
        output[0, 4:] = float("nan")
        return output

    handle = model.hf_model.lm_head.register_forward_hook(spoil)
    with finite_outputs(model.hf_model):
        model.hf_model(input_ids=ids, attention_mask=mask)
        with pytest.raises(NotFiniteError, match="lm_head is the first layer"):
            model.hf_model(input_ids=ids)
    handle.remove()
    assert not model.hf_model._forward_hooks


def test_a_run_of_a_study_fails_with_the_layer_in_its_reason(tmp_path: Path) -> None:
    study = Study(model_with(1e5), language(), tmp_path)
    with pytest.warns(UserWarning, match="1 of 2 runs failed"):
        runs = study.sweep([Cast("float16"), RTN(8)])
    assert [run.state.value for run in runs] == ["failed", "done"]
    assert f"{NAME}.weight are not finite in float16" in study.table().loc[runs[0].id, "error"]
    assert study.choose(0.5).run.id != runs[0].id


def test_a_base_model_without_usable_outputs_gets_no_score(tmp_path: Path) -> None:
    study = Study(model_with(float("nan")), language(), tmp_path)
    with pytest.raises(NotFiniteError, match=NAME):
        study.run([])
    assert [run.state.value for run in study.runs] == ["failed"]
    assert not study.runs[0].record.measurements


def test_what_is_finite() -> None:
    assert is_finite(torch.tensor([]))
    assert is_finite(torch.tensor([1, 2]))
    assert is_finite(torch.tensor([65504.0]).half())
    assert not is_finite(torch.tensor([1.0, float("nan")]))
    check_weight("a", torch.ones(2, 2))
