from __future__ import annotations

import pytest
import torch
import transformers

from tests.tiny import ARCHITECTURES, tiny_model
from workbench.models.layers import shared_inputs
from workbench.models.scale_folding import FoldTarget, find_fold


def folds_of(hf_model):
    return {
        group.key.partition(".layers.0.")[2]: find_fold(hf_model, group)
        for group in shared_inputs(hf_model.eval())
        if ".layers.0." in group.key
    }


def test_scales_go_to_the_last_outputs_of_a_fused_layer():
    target = FoldTarget("x", is_norm=False, offset=0.0, n_outputs=5)
    assert target.divisor(torch.tensor([2.0, 4])).tolist() == [1, 1, 1, 2, 4]


def test_fused_projections():
    found = folds_of(tiny_model("Phi3"))
    assert found["self_attn.o_proj"].name == "model.layers.0.self_attn.qkv_proj"
    assert found["self_attn.o_proj"].n_outputs == 3 * 32
    assert found["mlp.down_proj"].n_outputs == 2 * 48
    values = {**ARCHITECTURES["Phi3"], "num_key_value_heads": 2, "vocab_size": 260}
    values.pop("config")
    grouped = transformers.Phi3ForCausalLM(transformers.Phi3Config(**values, pad_token_id=0))
    assert folds_of(grouped)["self_attn.o_proj"] is None  # one key-value head feeds two heads


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen2Moe"])
def test_a_norm_that_feeds_a_router_absorbs_nothing(kind):
    found = folds_of(tiny_model(kind))
    assert found["mlp.experts.gate_up_proj.1"] is None
    assert found.get("mlp.shared_expert.gate_proj") is None
    assert found["mlp.experts.down_proj.1"].name == "model.layers.0.mlp.experts.gate_up_proj.1"
    assert found["self_attn.q_proj"].is_norm


def test_gemmas_norms_add_one_to_their_weights():
    assert folds_of(tiny_model("Gemma"))["mlp.gate_proj"].offset == 1
    assert folds_of(tiny_model("Gemma3"))["self_attn.q_proj"].offset == 1
    assert folds_of(tiny_model("Llama"))["self_attn.q_proj"].offset == 0


def test_a_norm_after_the_residual_absorbs_nothing():
    hf_model = tiny_model("OPT")
    hf_model.config.do_layer_norm_before = False
    assert set(folds_of(hf_model).values()) == {None}
