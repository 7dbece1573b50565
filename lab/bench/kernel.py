"""The ways in which the steering kernel reaches the rows of profiles: all at once, or gathered.

    python -m lab.bench.kernel [--width 768] [--dtype bfloat16]

Every token is steered by one of R profiles of rank one, the tokens of a profile lying together.
Each way is timed in turn on one thread: all rows at once, rows gathered for each token, and rows
gathered for each block of tokens, as in a step unlike the last one. Printed last are the `PRICES`
by which `steering/runtime/selection.py` chooses: the time of a token and row by tokens in the
block, over that without a gather.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from steering.runtime.kernel import LowRankRows, low_rank
from steering.runtime.selection import BLOCK, Selection

REPEATS = 15
TOKENS = (32, 256, 2048)
PROFILES = (1, 8, 32, 64, 128, 256)


def rows_of(count: int, width: int) -> LowRankRows:
    """Rank-one rows of `count` profiles."""
    read, write, bound = torch.randn(count, width), torch.randn(count, width), torch.zeros(count)
    return LowRankRows(read, None, write, None, None, bound, bound)


def seconds(work: Callable[[], object]) -> float:
    """Median time of one call that finds no table in the cache, as between a model's layers."""
    between, times = torch.ones(1 << 23), []
    for _ in range(REPEATS):
        between.add_(1)
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def selections(num_tokens: int, num_profiles: int) -> dict[str, Selection]:
    """Selections that say the same: `dense`, `single` and `block`."""
    owner = torch.arange(num_tokens) * num_profiles // num_tokens
    dense = torch.zeros(1, num_tokens, num_profiles)
    dense[0, torch.arange(num_tokens), owner] = 1.0
    blocks = owner.view(-1, BLOCK)
    own = torch.stack([torch.unique_consecutive(block)[:1] for block in blocks])
    return {
        "dense": Selection(dense),
        "single": Selection(torch.ones(num_tokens, 1, 1), owner[:, None]),
        # where a block has several profiles it needs as many rows: timed with that many
        "block": _blocks(blocks, own, most=max(1, -(-num_profiles * BLOCK // num_tokens))),
    }


def _blocks(owner: torch.Tensor, own: torch.Tensor, most: int) -> Selection:
    gains = torch.zeros(*owner.shape, most)
    gains[:, :, 0] = 1.0
    return Selection(gains, own.repeat(1, most))


def measure(num_tokens: int, num_profiles: int, width: int, dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of each way at one point."""
    hidden = torch.randn(num_tokens, width).to(dtype)
    rows = rows_of(num_profiles, width)

    def run(selection: Selection) -> float:
        return 1e3 * seconds(
            lambda: low_rank(hidden.float(), rows, replace(selection), None, None).to(dtype)
        )

    return {way: run(selection) for way, selection in selections(num_tokens, num_profiles).items()}


def prices(width: int, dtype: torch.dtype) -> str:
    """Time of one more row by way, over that of the dense way, at the most tokens."""
    num_tokens = max(TOKENS)
    hidden = torch.randn(num_tokens, width).to(dtype)
    rows = rows_of(64, width)

    def slope(num_blocks: int, few: int, many: int) -> float:
        def run(most: int) -> float:
            index = torch.arange(most).repeat(num_blocks, 1) if num_blocks > 1 else None
            table = rows if index is not None else rows_of(most, width)
            gains = torch.ones(num_blocks, num_tokens // num_blocks, most)
            selection = Selection(gains, index)
            return seconds(lambda: low_rank(hidden.float(), table, replace(selection), None, None))

        return (run(many) - run(few)) / (many - few)

    dense = slope(1, 8, 64)
    found = {1: slope(num_tokens, 1, 4), BLOCK: slope(num_tokens // BLOCK, 1, 8)}
    return ", ".join(f"{size} in a block: {cost / dense:.1f}" for size, cost in found.items())


def main() -> None:
    """Print milliseconds by way, then the prices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| tokens | profiles | dense ms | single ms | block ms |\n|---|---|---|---|---|")
    for num_tokens in TOKENS:
        for num_profiles in PROFILES:
            found = measure(num_tokens, num_profiles, options.width, dtype)
            cells = " | ".join(f"{found[way]:.3f}" for way in ("dense", "single", "block"))
            print(f"| {num_tokens} | {num_profiles} | {cells} |", flush=True)
    print(f"\n{prices(options.width, dtype)}")


if __name__ == "__main__":
    main()
