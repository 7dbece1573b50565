"""The Triton kernel that reads pages: against float64, and inside a model. Skipped without Triton.

    TRITON_INTERPRET=1 pytest tests/server/engine/attention/test_paged_decode.py

runs it where there is no CUDA device, in Triton's interpreter, whose matrix products know no
bfloat16: that type, and speed, are for a device to show.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from server.engine.attention import AttentionSpec, tiled
from server.engine.attention.paged_decode import DecodeRows, paged_decode
from server.engine.graphs import decode_graphs
from server.engine.outputs import StepMode
from tests.server.engine.harness import EngineHarness, load_tiny
from tests.server.engine.random_traffic import random_traffic

pytest.importorskip("triton", reason="no Triton: the kernel for pages is not tested here")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1",
    reason="no CUDA device: set TRITON_INTERPRET=1, which Triton reads when it is imported",
)
PAGE = 4
CASES = {
    "plain": AttentionSpec(0, 4, 2, 8, 8, 8**-0.5, None, None, torch.float32, DEVICE),
    "odd_group": AttentionSpec(0, 6, 2, 24, 16, 0.3, None, None, torch.float32, DEVICE),
    "window": AttentionSpec(0, 4, 1, 16, 16, 0.25, 5, None, torch.float32, DEVICE),
    "long_window": AttentionSpec(0, 4, 1, 16, 16, 0.25, 70, None, torch.float32, DEVICE),
    "softcap": AttentionSpec(0, 4, 4, 16, 16, 0.25, None, 3.0, torch.float32, DEVICE),
    "half": AttentionSpec(0, 4, 1, 64, 64, 0.125, None, None, torch.float16, DEVICE),
    "chunks": AttentionSpec(0, 4, 2, 16, 16, 0.25, None, None, torch.float32, DEVICE, chunk=8),
    "sinks": AttentionSpec(0, 4, 2, 16, 16, 0.25, 30, None, torch.float32, DEVICE, has_sinks=True),
}
LENGTHS = (1, 7, 8, 96, 65)


def expected(
    query: Tensor, keys: Tensor, values: Tensor, spec: AttentionSpec, sinks: Tensor | None
) -> Tensor:
    """One token's attention [H, Dv] over keys [L, Hkv, D] in float64."""
    query, keys, values = (each.double() for each in (query, keys, values))
    keys, values = (each.repeat_interleave(spec.num_groups, dim=1) for each in (keys, values))
    scores = torch.einsum("hd,khd->hk", query, keys) * spec.scaling
    if spec.softcap is not None:
        scores = spec.softcap * torch.tanh(scores / spec.softcap)
    scores[:, : max(spec.reach.first(len(keys) - 1), 0)] = -torch.inf
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None]], dim=1)
    return torch.einsum("hk,khd->hd", scores.softmax(dim=1)[:, : len(keys)], values)


@pytest.mark.parametrize("head_major", [False, True])
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES)
def test_each_row_is_attention_over_its_own_pages(spec: AttentionSpec, head_major: bool) -> None:
    """Blocks lie in any order, and what stands beyond a context is NaN."""
    generator = torch.Generator().manual_seed(0)
    blocks = [-(-length // PAGE) for length in LENGTHS]
    order = torch.randperm(sum(blocks), generator=generator).split(blocks)
    table = torch.full((len(LENGTHS), max(blocks) + 3), sum(blocks), dtype=torch.int32)
    keys = torch.full((sum(blocks) + 1, PAGE, spec.num_kv_heads, spec.key_dim), torch.nan)
    values = torch.full((*keys.shape[:3], spec.value_dim), torch.nan)
    contexts = []
    for row, (own, length) in enumerate(zip(order, LENGTHS, strict=True)):
        table[row, : len(own)] = own
        slots = (own[:, None] * PAGE + torch.arange(PAGE)).flatten()[:length]
        for cache in (keys, values):
            drawn = torch.randn(length, *cache.shape[2:], generator=generator)
            cache.view(-1, *cache.shape[2:])[slots] = drawn.to(spec.dtype).float()
        contexts.append(slots)
    query = torch.randn(len(LENGTHS), spec.num_heads, spec.key_dim, generator=generator)
    query = query.to(DEVICE, spec.dtype)
    keys, values = (each.to(DEVICE, spec.dtype) for each in (keys, values))
    sinks = torch.linspace(-2, 2, spec.num_heads).to(DEVICE) if spec.has_sinks else None
    laid = [_head_major(each) if head_major else each for each in (keys, values)]
    lengths = torch.tensor(LENGTHS, dtype=torch.int32, device=DEVICE)
    got = paged_decode(query, *laid, DecodeRows(table.to(DEVICE), lengths), spec, sinks)
    tolerance = 2e-6 if spec.dtype is torch.float32 else 2e-3
    for row, slots in enumerate(contexts):
        k, v = (each.flatten(0, 1)[slots.to(DEVICE)] for each in (keys, values))
        want = expected(query[row], k, v, spec, sinks)
        torch.testing.assert_close(got[row].double(), want, atol=tolerance, rtol=tolerance)


def _head_major(cache: Tensor) -> Tensor:
    """The same values as a view of [Hkv, blocks, page, D] memory, as tiled layers keep theirs."""
    return cache.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)


@dataclass
class _Rerun:
    run: Callable[[], None]
    num_bytes: int = 0

    def replay(self) -> None:
        self.run()


class _Reruns:
    """Replays by running again: the interpreter's kernel is no call that could be recorded."""

    def capture(self, run: Callable[[], None], reads: Sequence[Tensor]) -> _Rerun:
        return _Rerun(run)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_model_decodes_by_it(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by products over gathered keys, in mixed steps and in those of static shape."""
    loaded = load_tiny(family, tmp_path, device=str(DEVICE), dtype="float32")
    plain = EngineHarness(loaded, max_num_batched_tokens=24)
    traffic = random_traffic(plain, np.random.default_rng(1), count=5, cancel=False)
    plain.run(*(item.traffic for item in traffic))
    calls = []

    def counted(*args: object) -> Tensor:
        calls.append(args)
        return paged_decode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tiled, "reads_pages", lambda device: True)
    monkeypatch.setattr(tiled, "paged_decode", counted)
    monkeypatch.setattr(decode_graphs, "_TIMES_SEEN", 1)
    paged = load_tiny(family, tmp_path, device=str(DEVICE), dtype="float32")
    for backend in (None, _Reruns()):
        harness = EngineHarness(paged, max_num_batched_tokens=24, backend=backend)
        harness.run(*(item.traffic for item in traffic))
        for item in traffic:
            got, want = (
                torch.stack(each.logits[item.request.request_id]) for each in (harness, plain)
            )
            torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-5)
        stats = harness.core.stats(is_healthy=True, is_draining=False)
        assert (stats.steps_by_mode[StepMode.REPLAYED] > 0) is (backend is not None)
    assert len(calls) > 20
