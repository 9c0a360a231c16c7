from __future__ import annotations

import torch

from tests.structured import loaded, outputs, run
from workbench.recipes import Cast
from workbench.storage.artifacts import load_weights, save_weights


def test_what_is_not_stored_is_not_rounded(tmp_path):
    """Rotary frequencies are made anew when a model is loaded, so a cast may not touch them."""
    model = loaded("Llama")
    made = run(model, Cast("bfloat16"), tmp_path).model
    frequencies = made.hf_model.model.rotary_emb.inv_freq
    assert torch.equal(frequencies, model.hf_model.model.rotary_emb.inv_freq)
    weight = made.hf_model.model.norm.weight
    assert torch.equal(weight, weight.bfloat16().float())
    save_weights(tmp_path / "weights", made)
    assert torch.equal(outputs(load_weights(tmp_path / "weights", model)), outputs(made))
