"""Compare the sides by alternating their runs on the same core, and print medians and ratios.

    python -m lab.bench.compare [--prompt-tokens 64 512] [--rounds 3] [--core 1]
                            [--sides coxswain transformers vllm] [--vllm-python PATH]

Each run is a process of its own, pinned to one core with one thread, and reports wall time and
processor time from the first request in to the last token out, after loading and warming up. On a
machine that does other things, compare by processor time: it leaves out what others took.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from .model_124m import model_path

_MODULES = {
    "coxswain": "lab.bench.throughput",
    "transformers": "lab.bench.transformers_cb",
    "vllm": "lab.bench.vllm_cpu",
}


def run(side: str, python: str, core: int, options: list[str]) -> dict[str, Any]:
    """One run in a process of its own; its last line is the measurement."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | one_thread | {"TOKENIZERS_PARALLELISM": "false"}
    pinned = ["taskset", "-c", str(core), python, "-m", _MODULES[side], *options]
    if side == "vllm":
        pinned += ["--core", str(core)]
    done = subprocess.run(pinned, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def describe(seed: int) -> str:
    """What every number depends on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{model}, one core, one thread, bfloat16, Python {platform.python_version()}, "
        f"commit {commit}, seed {seed}"
    )


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Medians by side, and ours over each."""

    def rate(side: str, key: str) -> float:
        runs = results[side]
        return statistics.median(r["tokens_per_second"] * r["wall_seconds"] / r[key] for r in runs)

    rows = [
        "| side | runs | tokens/s | tokens per processor second | ours over it |",
        "|---|---|---|---|---|",
    ]
    for side, runs in results.items():
        wall, cpu = rate(side, "wall_seconds"), rate(side, "cpu_seconds")
        ratio = rate("coxswain", "cpu_seconds") / cpu if "coxswain" in results else float("nan")
        rows.append(f"| {side} | {len(runs)} | {wall:.0f} | {cpu:.0f} | {ratio:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Run all sides in turn, round by round."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--prompt-tokens", type=int, nargs="+", default=[64, 512])
    options.add_argument("--num-requests", type=int, default=32)
    options.add_argument("--new-tokens", type=int, default=32)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    options.add_argument("--sides", nargs="+", choices=sorted(_MODULES), default=sorted(_MODULES))
    options.add_argument("--vllm-python", default=".venv-vllm/bin/python")
    arguments = options.parse_args()
    print(describe(arguments.seed))
    for prompt_tokens in arguments.prompt_tokens:
        given = {
            "--model": model_path(),
            "--num-requests": arguments.num_requests,
            "--prompt-tokens": prompt_tokens,
            "--new-tokens": arguments.new_tokens,
            "--seed": arguments.seed,
        }
        flags = [str(part) for pair in given.items() for part in pair]
        results: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for _ in range(arguments.rounds):
            for side in arguments.sides:
                python = arguments.vllm_python if side == "vllm" else sys.executable
                results[side].append(run(side, python, arguments.core, flags))
        print(f"\n{arguments.num_requests} requests, {prompt_tokens}-token prompts, ", end="")
        print(f"{arguments.new_tokens} new tokens\n\n{table(results)}", flush=True)


if __name__ == "__main__":
    main()
