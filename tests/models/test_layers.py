from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.tiny import tiny_model
from workbench.errors import UnsupportedArchitectureError
from workbench.models.layers import (
    LinearGroup,
    find_blocks,
    find_linears,
    left_dense,
    shared_inputs,
    weight_of,
)
from workbench.models.scale_folding import find_fold


@pytest.mark.parametrize(
    ("architecture", "groups", "folds"),
    [
        ("LlamaForCausalLM", [3, 1, 2, 1], [True, False, True, True]),
        ("OPTForCausalLM", [3, 1, 1, 1], [True, True, True, False]),
        ("GPT2LMHeadModel", [1, 1, 1, 1], [True, True, True, False]),
        ("BertModel", [3, 1, 1, 1], [False, True, False, False]),
    ],
)
def test_shared_inputs_are_found_by_running_the_model(architecture, groups, folds):
    model = tiny_model(architecture).eval()
    found = shared_inputs(model)
    assert [len(g.names) for g in found] == groups * 2
    assert [find_fold(model, g) is not None for g in found] == folds * 2
    assert {n for g in found for n in g.names} == set(find_linears(model))
    for group in found:
        assert weight_of(model.get_submodule(group.key)).shape[1] == group.in_features
        assert group.key.startswith(group.block + ".")


def test_grouped_query_attention_cannot_fold_into_values():
    model = tiny_model("LlamaForCausalLM").eval()
    output = next(g for g in shared_inputs(model) if g.key.endswith("o_proj"))
    assert find_fold(model, output) is None  # one key-value head feeds two heads


def test_weight_of_conv1d_is_transposed():
    layer = tiny_model("GPT2LMHeadModel").transformer.h[0].attn.c_attn
    assert weight_of(layer).shape == (48, 16)
    assert torch.equal(weight_of(layer), layer.weight.T)


def test_head_and_embeddings_are_not_in_blocks():
    model = tiny_model("LlamaForCausalLM")
    assert list(find_blocks(model)) == ["model.layers.0", "model.layers.1"]
    assert not any("lm_head" in n or "embed" in n for n in find_linears(model))


class _Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(4, 16, 32))
        self.router = nn.Linear(16, 4)


def test_weights_outside_of_linear_layers_are_named_not_skipped():
    model = nn.Module()
    model.layers = nn.ModuleList([_Experts(), _Experts()])
    linears = find_linears(model)
    assert set(linears) == {"layers.0.router", "layers.1.router"}
    group = LinearGroup("layers.0.router", ("layers.0.router",), 16, "layers.0")
    assert left_dense(model, [group]) == {
        "layers.0.gate_up_proj": "4 by 16 by 32, not the weight of a linear layer",
        "layers.1.gate_up_proj": "4 by 16 by 32, not the weight of a linear layer",
        "layers.1.router": "no token of a probe entered it",
    }


def test_a_model_without_blocks_is_refused():
    with pytest.raises(UnsupportedArchitectureError, match="no repeated blocks"):
        find_linears(nn.Sequential(nn.Linear(4, 4)))
