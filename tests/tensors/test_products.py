"""Products are as precise as float32 is, and sums of outer products are whole."""

from __future__ import annotations

import pytest
import torch

from workbench.tensors.products import add_gram, fast_products, mirror


@pytest.mark.parametrize("width", [1, 5, 64, 65, 200, 640])
def test_gram_is_the_sum_of_outer_products(width: int):
    torch.manual_seed(width)
    gram = torch.zeros(width, width)
    parts = [torch.randn(rows, width) for rows in (1, 70, 33)]
    for rows in parts:
        add_gram(gram, rows)
    mirror(gram)
    x = torch.cat(parts).double()
    assert torch.equal(gram, gram.T)
    assert torch.allclose(gram.double(), x.T @ x, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(7, 3, 5), (64, 512, 96), (300, 700, 40)])
def test_fast_products_are_float32_products(rows: int, inner: int, columns: int):
    torch.manual_seed(0)
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    exact = a.double() @ b.double()
    with fast_products():
        results = [a @ b, torch.nn.functional.linear(a, b.T), (a[None] @ b[None])[0]]
    for result in results:
        error = (result.double() - exact).norm() / exact.norm()
        assert error < 1e-6  # products rounded to bfloat16 give about 2e-3


def test_the_setting_is_put_back_after_nested_use_and_errors():
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(settings, "fp32_precision"):
        pytest.skip("this version of torch has no such setting")
    before = settings.fp32_precision
    with fast_products():
        inside = settings.fp32_precision
        with fast_products():
            pass
        assert settings.fp32_precision == inside
    assert settings.fp32_precision == before

    def fail() -> None:
        with fast_products():
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert settings.fp32_precision == before
