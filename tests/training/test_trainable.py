from __future__ import annotations

import pytest
import torch

from tests.models.families import family_model
from tests.tiny import tiny_model, tiny_tokenizer
from workbench.compression.compress import compress
from workbench.errors import CompressionError, ConfigError
from workbench.models.load import load_model
from workbench.recipes import RTN, MagnitudePruning, QuantizeEmbeddings
from workbench.recipes.recipe import Recipe
from workbench.tensors.weights import CorrectedWeight, PrunedWeight, QuantizedWeight
from workbench.training.trainable import trainable_of

IDS = torch.tensor([[5, 9, 77, 120, 33, 200, 41]])
ARCHITECTURES = ("LlamaForCausalLM", "GPT2LMHeadModel", "Qwen3Moe")


def model_of(architecture, *steps):
    model = load_model(tiny_model(architecture), tiny_tokenizer())
    return compress(model, Recipe.of(list(steps))).model


def moved(trainable, rate=0.05, steps=3):
    """Take some steps of an optimizer that pushes every trained value about."""
    optimizer = torch.optim.AdamW(trainable.parameters.values(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = trainable.model.hf_model(IDS).logits
        logits[..., 3].sum().backward()
        trainable.mask_gradients()
        optimizer.step()
        trainable.keep_in_force()
    with torch.no_grad():
        return trainable.model.hf_model(IDS).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("step", [MagnitudePruning(0.6), MagnitudePruning(n=2, m=4)], ids=str)
def test_masks_stay_as_they_were(architecture, step):
    model = model_of(architecture, step)
    trainable = trainable_of(model, "full")
    logits = moved(trainable)
    result = trainable.finished()
    for name, before in model.weights.items():
        after = result.weights[name]
        assert isinstance(before, PrunedWeight)
        assert isinstance(after, PrunedWeight)
        assert torch.equal(after.mask, before.mask)
        assert not torch.equal(after.values, before.values)
        assert after.sparsity == before.sparsity
    assert torch.allclose(result.hf_model(IDS).logits, logits, atol=1e-4)


def test_what_was_given_is_not_changed_and_the_result_is_as_stored():
    given = load_model(tiny_model().half(), tiny_tokenizer(), dtype="float32")
    before = {n: t.clone() for n, t in given.hf_model.state_dict().items()}
    trainable = trainable_of(given, "full")
    moved(trainable)
    result = trainable.finished()
    assert result.stored_dtype == torch.float16
    for name, tensor in result.hf_model.state_dict().items():
        assert torch.equal(given.hf_model.state_dict()[name], before[name])
        assert torch.equal(tensor, tensor.half().float()), "evaluated is what is stored"
    assert not torch.equal(
        result.hf_model.state_dict()["model.norm.weight"], before["model.norm.weight"]
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES[:2])
def test_lora_keeps_the_codes_and_stores_a_product_beside_them(architecture):
    model = model_of(architecture, RTN(4, group_size=8))
    trainable = trainable_of(model, "lora", rank=2)
    before = trainable.model.hf_model(IDS).logits
    assert torch.allclose(before, model.hf_model(IDS).logits, atol=1e-5), "begins at nothing"
    logits = moved(trainable, 0.01)
    result = trainable.finished()
    for name, weight in result.weights.items():
        assert isinstance(weight, CorrectedWeight)
        assert weight.base is model.weights[name]
        assert weight.right.shape == (2, weight.shape[1])
    assert torch.allclose(result.hf_model(IDS).logits, logits, atol=2e-3)
    assert not torch.allclose(logits, before, atol=1e-2)


def test_lora_on_dense_layers_is_merged_into_them():
    model = load_model(tiny_model(), tiny_tokenizer())
    trainable = trainable_of(model, "lora", rank=2)
    logits = moved(trainable, 0.01)
    result = trainable.finished()
    assert not result.weights
    assert result.size_bytes == model.size_bytes
    assert torch.allclose(result.hf_model(IDS).logits, logits, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES[:2])
@pytest.mark.parametrize("group_size", [8, None])
def test_scales_are_trained_and_the_codes_stay(architecture, group_size):
    model = model_of(architecture, RTN(4, group_size=group_size), QuantizeEmbeddings(8))
    trainable = trainable_of(model, "scales")
    before = trainable.model.hf_model(IDS).logits
    assert torch.allclose(before, model.hf_model(IDS).logits, atol=1e-5)
    logits = moved(trainable, 0.02)
    result = trainable.finished()
    assert result.size_bytes == model.size_bytes
    changed = 0
    for name, weight in result.weights.items():
        assert isinstance(weight, QuantizedWeight)
        assert torch.equal(weight.codes, model.weights[name].codes)
        changed += not torch.equal(weight.scales, model.weights[name].scales)
    assert changed >= len(result.weights) - 1, "all but the embeddings"
    assert torch.allclose(result.hf_model(IDS).logits, logits, atol=5e-3)


def test_quantized_embeddings_are_not_trained():
    model = model_of("LlamaForCausalLM", QuantizeEmbeddings(8))
    trainable = trainable_of(model, "full")
    assert not any("embed" in name for name in trainable.parameters)
    moved(trainable)
    result = trainable.finished()
    (name,) = model.weights
    assert result.weights[name] is model.weights[name]
    assert torch.equal(result.site(name).matrix, model.weights[name].dequantize())


def test_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="no quantized layers"):
        trainable_of(load_model(tiny_model(), tiny_tokenizer()), "scales")


def test_what_does_not_fit_into_the_stored_dtype_is_an_error():
    model = load_model(tiny_model().half(), tiny_tokenizer(), dtype="float32")
    trainable = trainable_of(model, "full")
    next(iter(trainable.parameters.values())).data.fill_(1e6)
    with pytest.raises(CompressionError, match="Lower learning_rate"):
        trainable.finished()


LORA = ("DeepseekV2", "DeepseekV3", "Qwen3Next", "Glm4Moe", "Ernie4_5_Moe", "HunYuanMoEV1")
LORA += ("FalconH1", "NemotronH", "Mamba", "Mamba2", "Jamba", "Bamba", "Qwen3Moe", "Olmoe", "Rwkv")


@pytest.mark.parametrize("kind", LORA)
def test_lora_on_dense_layers_beside_experts_and_state_spaces(kind):
    """Names that experts have too, and layers whose weight a kernel reads without calling them."""
    ids = torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(0))
    model = load_model(family_model(kind), tiny_tokenizer(), device="cpu")
    trainable = trainable_of(model, "lora", rank=2)
    trainable.model.hf_model.train()  # as the loop does; RWKV writes to a state otherwise
    trainable.model.hf_model(input_ids=ids)[0].square().mean().backward()
    trainable.model.hf_model.eval()
    learned = [p for p in trainable.parameters.values() if p.grad is not None]
    assert len(learned) == len(trainable.parameters)
    with torch.no_grad():
        for parameter in trainable.parameters.values():
            parameter.add_(0.02)
        expected = trainable.model.hf_model(input_ids=ids)[0]
        result = trainable.finished()
        found, given = (m.hf_model(input_ids=ids)[0] for m in (result, model))
    size = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 1e-4 * size
    assert float((found - given).abs().max()) > 1e-4 * size
    state = model.hf_model.state_dict()
    changed = {n for n, t in result.hf_model.state_dict().items() if not torch.equal(t, state[n])}
    assert not any(name.endswith("mixer.out_proj.weight") for name in changed)
