"""On a GPU: both attention paths against transformers, half precision, and no host sync."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface

from server.engine.attention import PagedAttention, ScheduledSequence, inspect_attention
from server.engine.attention.inspection import INSPECTED, PAGED, MaskRule, inspected_attention
from server.engine.attention.paged_attention import paged_attention
from server.engine.attention.tiled import TiledLayer
from server.engine.attention.varlen import VarlenLayer
from tests.models.tiny import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

_WIDE = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
_LENGTHS = (5, 40, 70)


def _logits(family: str, dtype: torch.dtype, kind: type, tolerance: float) -> None:
    AttentionInterface.register(PAGED, paged_attention)
    AttentionInterface.register(INSPECTED, inspected_attention)
    AttentionMaskInterface.register(INSPECTED, MaskRule)
    model = tiny_model(family, dtype=dtype, **_WIDE).to("cuda")
    prompts = [torch.arange(n, device="cuda") % 250 for n in _LENGTHS]
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        expected = [model(input_ids=p[None], use_cache=False).logits[0].float() for p in prompts]
    model.set_attn_implementation(PAGED)
    attention = PagedAttention(inspect_attention(model), num_blocks=64, block_size=16)
    assert all(type(cache) is kind for cache in attention.caches)
    tables = [list(range(i * 8, i * 8 + 8))[::-1] for i in range(len(prompts))]
    for first, count in ((0, 4), (4, 1), (5, 200)):
        parts = [(i, min(count, len(p) - first)) for i, p in enumerate(prompts)]
        parts = [(i, n) for i, n in parts if n > 0]
        ids = torch.cat([prompts[i][first : first + n] for i, n in parts])
        positions = torch.cat([torch.arange(first, first + n) for _, n in parts]).cuda()
        keep = torch.arange(len(ids), device="cuda")
        attention.begin_step([ScheduledSequence(tables[i], first, n) for i, n in parts])
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.inference_mode():
                logits = model(
                    input_ids=ids[None],
                    position_ids=positions[None],
                    use_cache=False,
                    logits_to_keep=keep,
                ).logits[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for (i, n), rows in zip(parts, logits.float().split([n for _, n in parts]), strict=True):
            torch.testing.assert_close(
                rows, expected[i][first : first + n], atol=tolerance, rtol=tolerance
            )


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "qwen3"])
def test_the_variable_length_kernel(family: str) -> None:
    _logits(family, torch.bfloat16, VarlenLayer, tolerance=0.1)


@pytest.mark.parametrize("family", ["gemma2"])
def test_soft_cap_takes_dense_products(family: str) -> None:
    _logits(family, torch.bfloat16, TiledLayer, tolerance=0.1)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gemma3"])
def test_float32_takes_dense_products(family: str) -> None:
    _logits(family, torch.float32, TiledLayer, tolerance=1e-3)
