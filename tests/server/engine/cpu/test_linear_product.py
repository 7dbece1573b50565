from __future__ import annotations

import pytest
import torch
from torch import Tensor

from server.engine.cpu import LinearProduct, has_float16_products
from server.engine.cpu.linear_product import keeps_in_float16

_needs_fbgemm = pytest.mark.skipif(not has_float16_products(), reason="torch has no FBGEMM here")


def _draw(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(*shape, generator=generator) / 8).to(dtype)


@_needs_fbgemm
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("num_rows", [1, 3, 20])
def test_float16_weights_give_the_map_to_the_last_rounding(num_rows: int, with_bias: bool) -> None:
    weight, bias = _draw(70, 50), _draw(70) if with_bias else None
    product = LinearProduct(weight, bias, in_float16=True)
    x = _draw(1, num_rows, 50)
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    y = product.by_float16(x)
    assert y.dtype is torch.bfloat16
    torch.testing.assert_close(y.double(), exact, atol=1e-6, rtol=2.0**-8)


@_needs_fbgemm
def test_a_row_gets_the_same_bits_in_any_company() -> None:
    product = LinearProduct(_draw(192, 576), None, in_float16=True)
    x = _draw(40, 576)
    together = product.by_float16(x)
    for count in range(1, 20):
        for start in range(0, 40 - count, 7):
            rows = slice(start, start + count)
            assert torch.equal(product.by_float16(x[rows]), together[rows])


@pytest.mark.parametrize("in_float16", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_rows_are_mapped_to_none(dtype: torch.dtype, in_float16: bool) -> None:
    """A step whose requests are read and not sampled from wants no logits."""
    product = LinearProduct(_draw(6, 5).to(dtype), None, in_float16=in_float16)
    assert product(_draw(1, 0, 5).to(dtype)).shape == (1, 0, 6)


@_needs_fbgemm
def test_the_number_of_rows_chooses_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    product = LinearProduct(_draw(6, 5), None, in_float16=True)
    rows: list[int] = []
    by_float16 = LinearProduct.by_float16

    def counted(self: LinearProduct, x: Tensor) -> Tensor:
        rows.append(x.shape[-2])
        return by_float16(self, x)

    monkeypatch.setattr(LinearProduct, "by_float16", counted)
    for max_rows in (0, 2):
        product.max_float16_rows = max_rows
        for num_rows in (1, 2, 3):
            product(_draw(1, num_rows, 5))
    assert rows == [1, 2]
    product.drop_float16()
    product(_draw(1, 1, 5))
    assert rows == [1, 2]
    assert not product.has_float16


@pytest.mark.parametrize(
    ("value", "keeps"),
    [
        (1.0, True),
        (2.0**-14, True),
        (65280.0, True),
        (65536.0, False),
        (1e-3 * 2.0**-14, True),  # beside ones it is lost in a row's own rounding
    ],
)
def test_a_weight_beyond_float16_is_left_in_bfloat16(value: float, keeps: bool) -> None:
    weight = torch.ones(3, 4, dtype=torch.bfloat16)
    weight[1, 2] = value
    assert keeps_in_float16(weight) is keeps
    if has_float16_products():
        assert LinearProduct(weight, None, in_float16=True).has_float16 is keeps


def test_a_row_of_tiny_weights_alone_is_left_in_bfloat16() -> None:
    weight = torch.ones(3, 4, dtype=torch.bfloat16)
    weight[1] = 3e-6
    assert not keeps_in_float16(weight)
    weight[1] = 0.0
    assert keeps_in_float16(weight)


def test_float32_weights_are_kept_only_exactly() -> None:
    weight = torch.full((3, 4), 0.25)
    assert keeps_in_float16(weight)
    weight[0, 0] = 0.1
    assert not keeps_in_float16(weight)
