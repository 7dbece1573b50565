"""Ways to attend over a paged cache on the CPU: why the engine's is what it is.

    python -m lab.bench.attention [--dtype bfloat16] [--repeats 15]

30 layers, 9 query and 3 key/value heads of 64 as in SmolLM2-135M, one thread. Times are processor
milliseconds of one step over all layers; fewest of all repeats, ways in turn. Other people's
products are `scaled_dot_product_attention` on views of the cache where blocks lie together, and on
gathered copies; the engine's is `server.engine.attention`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from server.engine.attention import AttentionSpec, PagedAttention, ScheduledSequence
from server.engine.loading.memory import keep_freed_memory

_LAYERS, _HEADS, _KV_HEADS, _DIM, _BLOCK, _BLOCKS = 30, 9, 3, 64, 16, 2048


def decode(context: int, num_sequences: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Ways to decode one token of each sequence."""
    num_blocks = -(-context // _BLOCK)
    tables = torch.arange(num_sequences * num_blocks).view(num_sequences, num_blocks)
    caches = [_cache(dtype) for _ in range(_LAYERS)]
    query = torch.randn(num_sequences, _KV_HEADS, _HEADS // _KV_HEADS, _DIM).to(dtype)
    seen = torch.arange(num_blocks * _BLOCK) < context

    def views() -> None:
        for keys, values in caches:
            for i, table in enumerate(tables):
                run = slice(int(table[0]) * _BLOCK, int(table[0]) * _BLOCK + context)
                F.scaled_dot_product_attention(
                    query[i : i + 1], keys[None, :, run], values[None, :, run]
                )

    def gathered(group: int) -> Callable[[], None]:
        def run() -> None:
            for keys, values in caches:
                for first in range(0, num_sequences, group):
                    blocks = tables[first : first + group]
                    F.scaled_dot_product_attention(
                        query[first : first + group],
                        _gather(keys, blocks),
                        _gather(values, blocks),
                        attn_mask=seen[None, None, None],
                    )

        return run

    def products() -> None:
        for keys, values in caches:
            for i, table in enumerate(tables):
                run = slice(int(table[0]) * _BLOCK, int(table[0]) * _BLOCK + context)
                scores = torch.bmm(query[i], keys[:, run].transpose(1, 2))
                torch.bmm(scores.softmax(-1), values[:, run])

    def spaced() -> None:
        shape = (num_sequences, num_blocks * _BLOCK, _DIM)
        num_keys = num_sequences * num_blocks * _BLOCK
        for keys, values in caches:
            for head in range(_KV_HEADS):
                k, v = keys[head, :num_keys].view(shape), values[head, :num_keys].view(shape)
                scores = torch.bmm(query[:, head], k.transpose(1, 2))
                scores.masked_fill_(~seen, -torch.inf)
                torch.bmm(scores.softmax(-1), v)

    steps = [ScheduledSequence(t.tolist(), context - 1, 1) for t in tables]
    return {
        "one SDPA a sequence, on views": views,
        "two products a sequence, on views": products,
        "two products a head, on views of runs at equal distances": spaced,
        "one SDPA a sequence, gathered": gathered(1),
        "one SDPA, gathered": gathered(num_sequences),
        "engine": _engine(steps, dtype),
    }


def prefill(length: int, num_sequences: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Ways to compute whole prompts."""
    num_tokens = length * num_sequences
    shapes = ((_HEADS, num_tokens), (_KV_HEADS, num_tokens), (_KV_HEADS, num_tokens))
    q, k, v = (torch.randn(1, heads, count, _DIM).to(dtype) for heads, count in shapes)

    def sdpa() -> None:
        for _ in range(_LAYERS):
            for first in range(0, num_tokens, length):
                run = slice(first, first + length)
                F.scaled_dot_product_attention(
                    q[:, :, run], k[:, :, run], v[:, :, run], is_causal=True, enable_gqa=True
                )

    count = -(-length // _BLOCK)
    steps = [
        ScheduledSequence(range(i * count, (i + 1) * count), 0, length)
        for i in range(num_sequences)
    ]
    return {"one causal SDPA a sequence": sdpa, "engine": _engine(steps, dtype)}


def _cache(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    shape = (_KV_HEADS, _BLOCKS * _BLOCK, _DIM)
    return torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)


def _gather(cache: Tensor, blocks: Tensor) -> Tensor:
    found = cache.view(_KV_HEADS, _BLOCKS, _BLOCK, _DIM).index_select(1, blocks.reshape(-1))
    return found.view(_KV_HEADS, len(blocks), -1, _DIM).transpose(0, 1)


def _engine(steps: list[ScheduledSequence], dtype: torch.dtype) -> Callable[[], object]:
    spec = AttentionSpec(
        0, _HEADS, _KV_HEADS, _DIM, _DIM, _DIM**-0.5, None, None, dtype, torch.device("cpu")
    )
    modules = [nn.Module() for _ in range(_LAYERS)]
    attention = PagedAttention([(module, spec) for module in modules], _BLOCKS, _BLOCK)
    for cache in attention.caches:
        cache.keys.normal_()
        cache.values.normal_()
    num_tokens = sum(step.num_tokens for step in steps)
    q, k, v = (
        torch.randn(1, num_tokens, heads, _DIM).to(dtype).transpose(1, 2)
        for heads in (_HEADS, _KV_HEADS, _KV_HEADS)
    )

    def run() -> None:
        attention.begin_step(steps)
        for module in modules:
            module.coxswain(q, k, v)  # type: ignore[operator]

    return run


def report(title: str, ways: dict[str, Callable[[], object]], repeats: int) -> None:
    """Time the ways in turn and print the fewest milliseconds of each."""
    fewest = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            fewest[name] = min(fewest[name], time.process_time() - start)
    print(f"\n| {title} | ms |\n|---|---|")
    for name, seconds in fewest.items():
        print(f"| {name} | {1e3 * seconds:.1f} |", flush=True)


@torch.inference_mode()
def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    options.add_argument("--repeats", type=int, default=15)
    arguments = options.parse_args()
    dtype = getattr(torch, arguments.dtype)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    keep_freed_memory()
    for context in (96, 432):
        ways = decode(context, 32, dtype)
        report(f"decode, 32 sequences of {context}, {arguments.dtype}", ways, arguments.repeats)
    for length, count in ((64, 32), (400, 1), (400, 5)):
        ways = prefill(length, count, dtype)
        report(f"prefill, {count} of {length}, {arguments.dtype}", ways, arguments.repeats)


if __name__ == "__main__":
    main()
