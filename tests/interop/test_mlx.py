"""Every architecture that is written for MLX, computed by mlx-lm: its logits decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmarks.peers.client import Peer
from tests.exported import exported
from tests.interop.windows import perplexity, windows_of
from tests.tiny import tiny_tokenizer
from workbench.compression.compress import compress
from workbench.export.mlx import ARCHITECTURES
from workbench.models.load import load_model
from workbench.recipes import RTN
from workbench.recipes.recipe import Recipe

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,  # some alternate kinds of attention in groups of that many
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 264,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SCALED: dict[str, dict[str, Any]] = {
    "llama": {
        "rope_type": "llama3",
        "rope_theta": 5000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "qwen2": {
        "rope_type": "yarn",
        "rope_theta": 5000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
"""Rotary positions that are scaled, by model type."""


def random_model(kind: str, more: dict[str, Any]) -> Any:
    """Return a small model of a type, with weights so large that a wrong place changes the loss."""
    config_class = transformers.CONFIG_MAPPING[kind]
    model_class = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[config_class]
    config = config_class(**SMALL | more)
    rope = getattr(config, "rope_parameters", None) or {}
    for own in [rope] if "rope_theta" in rope else rope.values():
        own["rope_theta"] *= 0.37  # no base that mlx-lm has by itself
    model = model_class(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 or "bias" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return model


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *((kind, {}) for kind in ARCHITECTURES),
        *((kind, {"rope_parameters": dict(rope)}) for kind, rope in SCALED.items()),
    ],
    ids=str,
)
def test_mlx_lm_computes_the_same(
    kind: str, more: dict[str, Any], peer: Peer, tmp_path: Path
) -> None:
    dense = load_model(random_model(kind, more), tiny_tokenizer(("q", "u")))
    model = compress(dense, Recipe.of(RTN(3, group_size=32))).model
    done = exported(model, tmp_path / "out", "mlx")
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(4, 260, (3, 40), generator=generator).tolist()
    windows = windows_of(tmp_path / "rows.json", rows)
    expected = windows.perplexity(model)
    effect = abs(windows.perplexity(dense) - expected)  # of the codes, small for some
    found = perplexity(peer, "mlx", done.path, windows)
    assert found == pytest.approx(expected, rel=0.005, abs=0)
    assert abs(found - expected) < effect / 5
