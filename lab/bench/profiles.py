"""What profiles cost: the engine with none, and with ever more distinct ones at all layers.

    python -m lab.bench.profiles [--num-requests 32] [--profiles 0 32] [--rounds 5]
    python -m lab.bench.profiles --num-requests 256 --profiles 1 8 32 256

One process serves all settings in turn, round by round. Ratios are medians of the ratios within a
round, of processor time, which leaves out what else the machine did.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict

from .model_124m import model_path
from .workload import describe


def rates(core: int, options: list[str]) -> dict[int, list[float]]:
    """Tokens per processor second by number of profiles, round by round."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = ["taskset", "-c", str(core), sys.executable, "-m", "lab.bench.throughput", *options]
    done = subprocess.run(
        command, env=os.environ | one_thread, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    found: dict[int, list[float]] = defaultdict(list)
    for line in done.stdout.splitlines():
        result = json.loads(line)
        num_tokens = result["tokens_per_second"] * result["wall_seconds"]
        found[result["setting"]["profiles"]].append(num_tokens / result["cpu_seconds"])
    return found


def table(found: dict[int, list[float]]) -> str:
    """A row for each number of profiles, against the first."""
    base = next(iter(found.values()))
    rows = ["| profiles | tokens per processor second | of the first |", "|---|---|---|"]
    for count, measured in found.items():
        ratios = [mine / first for mine, first in zip(measured, base, strict=True)]
        rate, ratio = statistics.median(measured), statistics.median(ratios)
        rows.append(f"| {count} | {rate:.0f} | {100 * ratio:.1f} % |")
    return "\n".join(rows)


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--num-requests", type=int, default=32)
    options.add_argument("--prompt-tokens", type=int, default=64)
    options.add_argument("--new-tokens", type=int, default=32)
    options.add_argument("--profiles", type=int, nargs="+", default=[0, 32])
    options.add_argument("--operation", default="ablate", choices=["ablate", "add"])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    arguments = options.parse_args()
    flags = ["--model", str(model_path())]
    for name in ("num_requests", "prompt_tokens", "new_tokens", "operation", "rounds", "seed"):
        flags += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    flags += ["--profiles", *map(str, arguments.profiles)]
    print(describe(arguments.seed))
    print(
        f"\n{arguments.num_requests} requests, {arguments.prompt_tokens}-token prompts, "
        f"{arguments.new_tokens} new tokens, {arguments.operation} at every layer, "
        f"{arguments.rounds} rounds\n\n{table(rates(arguments.core, flags))}"
    )


if __name__ == "__main__":
    main()
