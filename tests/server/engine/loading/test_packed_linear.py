from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from server.engine.loading.packed_linear import linear_weight_bytes, pack_linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 7, 130])
def test_a_packed_map_computes_the_same(dtype: torch.dtype, bias: bool, num_tokens: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias, dtype=dtype).requires_grad_(False)
    x = torch.randn(1, num_tokens, 48, dtype=dtype)
    before = linear(x)
    assert pack_linear(nn.Sequential(linear)) == 1
    after = linear(x)
    assert after.dtype == dtype
    torch.testing.assert_close(after, before, atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0)


def test_gpt2s_transposed_map_is_packed_too() -> None:
    torch.manual_seed(0)
    conv = Conv1D(80, 48).requires_grad_(False)
    x = torch.randn(2, 5, 48)
    before = conv(x)
    assert pack_linear(nn.Sequential(conv)) == 1
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
