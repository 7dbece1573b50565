"""Dense against gathered rows in the steering kernel: where the one overtakes the other.

    python -m bench.kernel [--width 768] [--dtype bfloat16]

Every token is steered by one of R distinct profiles; both ways are timed in turn, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from steering.kernel import LowRankRows, Selection, low_rank

REPEATS = 15


def rows_of(count: int, width: int) -> LowRankRows:
    """Rank-one rows of `count` profiles."""
    zero = torch.zeros(count)
    read, write = torch.randn(count, width), torch.randn(count, width)
    return LowRankRows(read, zero, write, None, None, zero, zero)


def seconds(work: Callable[[], object]) -> float:
    """Median time of one call."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def compare(num_tokens: int, num_profiles: int, width: int, dtype: torch.dtype) -> str:
    """One row of the table: milliseconds of both ways at one point."""
    hidden = torch.randn(num_tokens, width).to(dtype)
    rows = rows_of(num_profiles, width)
    owner = torch.arange(num_tokens) % num_profiles
    dense = torch.zeros(num_tokens, num_profiles)
    dense[torch.arange(num_tokens), owner] = 1.0
    ways = (Selection(dense), Selection(torch.ones(num_tokens, 1), owner[:, None]))

    def run(selection: Selection) -> float:
        return 1e3 * seconds(
            lambda: low_rank(hidden.float(), rows, selection, None, None).to(dtype)
        )

    packed, gathered = run(ways[0]), run(ways[1])
    ratio = packed / gathered
    return f"| {num_tokens} | {num_profiles} | {packed:.3f} | {gathered:.3f} | {ratio:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [
        "| tokens | profiles | dense ms | gathered ms | dense / gathered |",
        "|---|---|---|---|---|",
    ]
    for num_tokens in (32, 256, 2048):
        for num_profiles in (1, 8, 32, 64, 128, 256):
            lines.append(
                compare(num_tokens, num_profiles, options.width, getattr(torch, options.dtype))
            )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
