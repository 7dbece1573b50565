from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from server.engine.cpu import LinearProduct, linear_weight_bytes, measure_float16_rows, pack_linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 7, 130])
def test_a_packed_map_computes_the_same(dtype: torch.dtype, bias: bool, num_tokens: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias, dtype=dtype).requires_grad_(False)
    x = torch.randn(1, num_tokens, 48, dtype=dtype)
    before = linear(x)
    assert len(pack_linear(nn.Sequential(linear))) == 1
    after = linear(x)
    assert after.dtype == dtype
    torch.testing.assert_close(after, before, atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0)


def test_gpt2s_transposed_map_is_packed_too() -> None:
    torch.manual_seed(0)
    conv = Conv1D(80, 48).requires_grad_(False)
    x = torch.randn(2, 5, 48)
    before = conv(x)
    assert len(pack_linear(nn.Sequential(conv))) == 1
    torch.testing.assert_close(conv(x), before, atol=1e-5, rtol=1e-5)


def test_hooks_paths_and_weights_stay() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).requires_grad_(False)
    names = [name for name, _ in model.named_parameters()]
    weight = model[0].weight.clone()
    pack_linear(model)
    model[0].register_forward_pre_hook(lambda _, args: (args[0] * 0,))
    model[2].register_forward_hook(lambda _, __, output: output + 1)
    x = torch.randn(3, 8)
    expected = model[2].weight @ model[0].bias.relu() + model[2].bias + 1
    torch.testing.assert_close(model(x), expected.expand(3, 8))
    assert [name for name, _ in model.named_parameters()] == names
    assert torch.equal(model[0].weight, weight)


def test_what_packing_needs_is_what_it_copies() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Embedding(100, 8), nn.Linear(4, 4).to(torch.float16))
    assert linear_weight_bytes(model) == 8 * 4 * 4


class _Siblings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(8, 6), nn.Linear(8, 2, bias=False)
        self.v_proj = nn.Linear(8, 3)
        self.requires_grad_(False)


def test_maps_of_one_tensor_are_one_product_whatever_is_called() -> None:
    torch.manual_seed(0)
    module = _Siblings()
    maps = [module.q_proj, module.k_proj, module.v_proj]
    xs = [torch.randn(1, 5, 8) for _ in range(3)]
    expected = [[m(x) for x in xs] for m in maps]
    assert len(pack_linear(module)) == 1
    calls = [(0, 0), (1, 0), (2, 0), (2, 1), (0, 1), (0, 2), (0, 0), (1, 0), (1, 0), (2, 2), (1, 1)]
    for index, place in calls:
        torch.testing.assert_close(maps[index](xs[place]), expected[index][place])


def test_a_tensor_that_changed_is_mapped_again() -> None:
    module = _Siblings()
    pack_linear(module)
    x = torch.ones(1, 1, 8)
    before = module.q_proj(x)
    x.zero_()
    torch.testing.assert_close(module.q_proj(x)[0, 0], module.q_proj.bias)
    assert not torch.equal(before, module.q_proj(x))


@pytest.mark.parametrize(("slope", "most"), [(0.0, 64), (1.0, 64), (4.0, 6), (30.0, 0)])
def test_the_form_that_took_less_time_is_chosen_by_rows(
    slope: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float16 product takes 10 + slope n seconds for n rows, the other one 30 + n."""
    now = [0.0]

    def takes(fixed: float, by_row: float) -> Callable[[LinearProduct, Tensor], Tensor]:
        def call(_: LinearProduct, x: Tensor) -> Tensor:
            now[0] += fixed + by_row * x.shape[0]
            return x

        return call

    products = [LinearProduct(torch.ones(4, 4), None, in_float16=True) for _ in range(3)]
    if not all(product.has_float16 for product in products):
        pytest.skip("torch has no FBGEMM here")
    monkeypatch.setattr(LinearProduct, "by_float16", takes(10.0, slope))
    monkeypatch.setattr(LinearProduct, "__call__", takes(30.0, 1.0))
    assert measure_float16_rows(products, clock=lambda: now[0]) == most


def test_nothing_with_a_float16_form_is_never_worth_it() -> None:
    assert measure_float16_rows([LinearProduct(torch.full((4, 4), 0.1), None)]) == 0
