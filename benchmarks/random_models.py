"""Llamas of any size with random weights: enough to measure time and memory, not quality."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import workbench as wb
from workbench.models.load import LoadedModel
from workbench.tasks import Task


def parse_size(text: str) -> int:
    """Return the number that ``"100M"`` or ``"1.5B"`` stands for."""
    return int(float(text[:-1]) * {"M": 10**6, "B": 10**9}[text[-1].upper()])


def random_llama(parameters: int, *, seed: int = 0) -> LoadedModel:
    """Return a Llama of about so many parameters, as wide as deep ones of that size are.

    Weights are normal with a standard deviation of 0.02, transformers' own initial values. All
    widths are multiples of 128, so that every peer can cut them into groups of 128. The tokenizer
    is the bundled model's.
    """
    tokenizer = wb.load_model("demo").tokenizer
    width = 128 * max(1, round((64 * parameters / 12) ** (1 / 3) / 128))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=128 * round(8 * width / 3 / 128),
        num_hidden_layers=max(2, round(parameters / (12 * width**2))),
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return wb.load_model(LlamaForCausalLM(config), tokenizer, device="cpu")


def random_windows(
    model: LoadedModel, count: int, length: int, *, seed: int = 0
) -> list[list[int]]:
    """Return windows of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = model.hf_model.config.vocab_size
    rows: list[list[int]] = torch.randint(
        1, vocabulary, (count, length), generator=generator
    ).tolist()
    return rows


class RandomTokens:
    """Takes the place of a task where only calibration windows are needed."""

    name = "random tokens"

    def __init__(self, count: int, *, seed: int = 0) -> None:
        self.fingerprint = f"random tokens {count} {seed}"
        self._count, self._seed = count, seed

    def calibration_windows(
        self, model: LoadedModel, *, sequence_length: int, seed: int
    ) -> list[list[int]]:
        return random_windows(model, self._count, sequence_length, seed=self._seed)

    calibration_examples = Task.calibration_examples
