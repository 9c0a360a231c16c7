from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.errors import ConfigError
from workbench.models.load import load_model
from workbench.models.weight_access import expert_sites, find_site
from workbench.recipes.schemes import IntScheme
from workbench.storage.artifacts import load_weights, save_weights
from workbench.tensors.weights import QuantizedWeight

STACK = "model.layers.1.mlp.experts.gate_up_proj"


@pytest.fixture
def mixtral():
    return load_model(tiny_model("Mixtral").half(), tiny_tokenizer(), device="cpu")


def four_bits(shape):
    rows, columns = shape
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.uint8)
    scales = torch.full((rows, 1), 0.01, dtype=torch.float16)
    return QuantizedWeight(codes, scales, None, IntScheme(4, None, symmetric=True))


def test_an_experts_matrix_is_a_slice_of_its_stack(mixtral):
    site = find_site(mixtral.hf_model, f"{STACK}.2")
    stack = mixtral.hf_model.get_parameter(STACK)
    assert site.shape == (96, 32)
    assert torch.equal(site.matrix, stack[2].float())
    before = stack.clone()
    site.put(torch.ones(96, 32))
    assert (stack[2] == 1).all()
    assert torch.equal(stack[[0, 1, 3]], before[[0, 1, 3]])
    with pytest.raises(ConfigError, match="does not fit"):
        site.put(torch.ones(32, 96))


def test_transposed_weights_read_and_write_the_same_way():
    hf_model = tiny_model("GPT2LMHeadModel")
    site = find_site(hf_model, "transformer.h.0.attn.c_attn")
    value = torch.randn(48, 16)
    site.put(value)
    assert torch.equal(site.matrix, value)
    assert torch.equal(site.whole, value.T)


@pytest.mark.parametrize(
    "name", [f"{STACK}.4", STACK, f"{STACK}.x", "model.layers.1.mlp.experts", "model.nothing", "3"]
)
def test_names_that_are_no_weight(mixtral, name):
    with pytest.raises(ConfigError, match=r"has no module"):
        mixtral.set_weight(name, four_bits((96, 32)))


def test_only_known_stacks_of_experts_are_taken_apart():
    hf_model = tiny_model("Mixtral")
    assert expert_sites("x", hf_model.model.layers[0].self_attn) == []
    names = [s.name for s in expert_sites("e", hf_model.model.layers[0].mlp.experts)]
    assert names[:3] == ["e.gate_up_proj.0", "e.down_proj.0", "e.gate_up_proj.1"]


def test_a_stack_that_is_compressed_in_part_counts_and_comes_back_exactly(mixtral, tmp_path):
    before = mixtral.size_bytes
    mixtral.set_weight(f"{STACK}.0", four_bits((96, 32)))
    mixtral.set_weight(f"{STACK}.2", four_bits((96, 32)))
    dense_bytes, packed_bytes = 2 * 96 * 32, 96 * 32 // 2 + 2 * 96
    assert mixtral.size_bytes == before - 2 * (dense_bytes - packed_bytes)

    base = load_model(tiny_model("Mixtral", seed=1).half(), tiny_tokenizer(), device="cpu")
    path = tmp_path / "weights.safetensors"
    save_weights(path, mixtral)
    restored = load_weights(path, base)
    for name, tensor in mixtral.hf_model.state_dict().items():
        assert torch.equal(tensor, restored.hf_model.state_dict()[name]), name
    assert restored.size_bytes == mixtral.size_bytes
    header = 200 * len(mixtral.hf_model.state_dict())
    assert 0 <= path.stat().st_size - mixtral.size_bytes < header
