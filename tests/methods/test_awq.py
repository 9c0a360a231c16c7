"""Known answers for AWQ's two searches."""

from __future__ import annotations

import torch

from workbench.methods.awq import search_scales, search_shrink
from workbench.recipes.schemes import IntScheme
from workbench.tensors import affine
from workbench.tensors.linalg import output_error
from workbench.tensors.statistics import InputStatistics


def make_statistics(activity: torch.Tensor) -> InputStatistics:
    x = torch.randn(500, len(activity), generator=torch.Generator().manual_seed(0)) * activity
    return InputStatistics(x.T @ x, x.abs().sum(0), len(x))


def rounded_error(weight, gram, scheme, shrink=1.0):
    scales, zeros = affine.choose_scales(weight, scheme, shrink=shrink)
    codes = affine.quantize(weight, scales, zeros, scheme)
    return output_error(affine.dequantize(codes, scales, zeros, scheme) - weight, gram)


def test_one_salient_input_is_scaled_up():
    activity = torch.ones(32)
    activity[9] = 50.0
    torch.manual_seed(0)
    scales = search_scales(torch.randn(16, 32), make_statistics(activity), IntScheme(3, 32), 20)
    assert int(scales.argmax()) == 9
    assert scales[9] > 2 * scales.median()


def test_scaling_never_loses_to_rounding():
    torch.manual_seed(1)
    weight, scheme = torch.randn(16, 48), IntScheme(3, 16)
    statistics = make_statistics(torch.rand(48) * 5)
    scales = search_scales(weight, statistics, scheme, 10)
    gram = statistics.mean_gram
    scaled_gram = gram / torch.outer(scales, scales)
    scaled = rounded_error(weight * scales, scaled_gram, scheme).sum()
    assert scaled <= rounded_error(weight, gram, scheme).sum() * (1 + 1e-5)


def test_a_lone_large_weight_on_a_silent_input_is_clipped():
    torch.manual_seed(2)
    weight = torch.randn(1, 64) * 0.1
    weight[0, 3] = 1.0
    activity = torch.ones(64)
    activity[3] = 1e-3
    gram = make_statistics(activity).mean_gram
    shrink = search_shrink(weight, gram, IntScheme(3, 64))
    assert float(shrink) <= 0.6


def test_clipping_is_judged_by_groups_and_never_loses_there():
    torch.manual_seed(3)
    weight, scheme = torch.randn(10, 40), IntScheme(2, 16)
    block = torch.zeros(40, 40)
    gram = make_statistics(torch.rand(40) + 0.1).mean_gram
    for start in range(0, 40, 16):
        block[start : start + 16, start : start + 16] = gram[start : start + 16, start : start + 16]
    shrink = search_shrink(weight, block, scheme)
    assert shrink.shape == (10, 3)
    clipped = rounded_error(weight, block, scheme, shrink)
    plain = rounded_error(weight, block, scheme)
    assert (clipped <= plain * (1 + 1e-5)).all()
    assert clipped.sum() < 0.95 * plain.sum()
