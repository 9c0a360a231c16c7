"""A correct export is one by its predictions, not by its worst token; a wrong one is found."""

from __future__ import annotations

import pytest
import torch

from workbench.export.base import Format
from workbench.export.gguf import GGUF
from workbench.export.hf import HuggingFace
from workbench.export.proof import BOUNDS, _holds, compare
from workbench.models.load import load_model

GENERATOR = torch.Generator().manual_seed(0)


def trained_logits(n: int = 200) -> torch.Tensor:
    """Return logits as of a trained model: one answer stands out at most places."""
    logits = torch.randn(n, 64, generator=GENERATOR)
    logits[torch.arange(n), torch.randint(64, (n,), generator=GENERATOR)] += 8
    return logits


@pytest.mark.parametrize("dtype", BOUNDS)
def test_rounding_holds_and_so_does_one_token_that_went_to_another_expert(
    dtype: torch.dtype,
) -> None:
    logits = trained_logits()
    rounding = logits.to(dtype).to(logits)
    assert _holds(compare([(logits, rounding)], BOUNDS[dtype]))
    if dtype.itemsize < 4:
        routed = rounding.clone()
        routed[17] += 0.3 * torch.randn(64, generator=GENERATOR)  # the largest logit is about 11
        routed[17, 3] += 2 * BOUNDS[dtype].difference * float(logits.abs().max())
        proof = compare([(logits, routed)], BOUNDS[dtype])
        assert proof.relative > proof.bound
        assert _holds(proof)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("scale", [1, 0.01], ids=["trained", "random weights"])
def test_a_model_that_is_another_one_does_not_hold(dtype: torch.dtype, scale: float) -> None:
    logits = trained_logits() * scale
    noisy = logits + 0.5 * scale * 8 * torch.randn(logits.shape, generator=GENERATOR)
    for wrong in (logits.flip(-1), logits.roll(1, 0), noisy, torch.full_like(logits, torch.nan)):
        assert not _holds(compare([(logits, wrong)], BOUNDS[dtype]))


def test_many_tokens_with_another_answer_do_not_hold() -> None:
    logits = trained_logits()
    wrong = logits.clone()
    wrong[:30] = wrong[:30].flip(-1)
    proof = compare([(logits, wrong)], BOUNDS[torch.bfloat16])
    assert proof.agreement == pytest.approx(0.85, abs=0.02)
    assert not _holds(proof)


def test_of_few_predictions_one_may_differ_and_ties_are_no_difference() -> None:
    logits = trained_logits(8)
    found = logits.clone()
    top = logits.argmax(-1)
    second = logits.topk(2).indices[:, 1]
    tied = logits.clone()
    tied[torch.arange(8), second] = logits.amax(-1) - 1e-4
    found[torch.arange(8), top] -= 2e-4
    assert compare([(tied, tied)], BOUNDS[torch.float16]).agreement == 1
    flipped = tied.clone()
    flipped[torch.arange(8), top] -= 2e-4
    assert compare([(tied, flipped)], BOUNDS[torch.float16]).agreement == 1


def test_classes_that_are_ruled_out_in_both_are_no_difference() -> None:
    logits = trained_logits()
    logits[:, 5] = -torch.inf
    proof = compare([(logits, logits.clone())], BOUNDS[torch.float32])
    assert proof.largest_difference == proof.kl == 0


@pytest.mark.parametrize("format", [HuggingFace(), GGUF()], ids=lambda format: format.name)
def test_a_format_is_judged_by_the_dtype_that_it_rounds_to(format: Format) -> None:
    model = load_model("demo")
    model.stored_dtype = torch.float32
    half = format.name == "gguf"
    assert format.dense_dtype(model) == (torch.float16 if half else torch.float32)
    model.stored_dtype = torch.bfloat16
    assert format.dense_dtype(model) == torch.bfloat16
