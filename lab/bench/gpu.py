"""Decode and prefill rates on a GPU: unsteered, with 32 and 256 profiles, eager and in graphs.

    python -m lab.bench.gpu [--size 1b|tiny] [--device cuda] [--profiles 0 32 256]

The subject is a Llama of 1.1 B parameters with random bfloat16 weights (16 layers, width 2048,
32/8 heads). Profile i is one `ablate` with a random direction of its own at every layer; request i
of a batch has profile i mod K. Every setting runs once to warm up (compile, capture), then timed.
`bash lab/bench/gpu.sh` runs this and the tests of a GPU, and writes one file.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import torch

from server.engine.async_engine import AsyncEngine
from server.engine.engine import EngineConfig
from steering.plan import SteeringPlan

from .model_124m import write_llama
from .throughput import generate, profile
from .workload import Workload

_SIZES: Final = {
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
_Graphs = Literal["auto", "off"]


def engine_of(path: Path, device: str, graphs: _Graphs) -> AsyncEngine:
    """An engine over the model, with room for 256 requests of 2,048 tokens at most."""
    return AsyncEngine.start(
        EngineConfig(
            str(path),
            device=device,
            dtype="bfloat16" if device != "cpu" else "float32",
            num_threads=1,
            max_num_seqs=256,
            max_num_batched_tokens=8192,
            max_model_len=2048,
            max_chunk_seconds=0.0,
            kv_cache_bytes=1 << 26 if device == "cpu" else 1 << 34,
            enable_prefix_cache=False,
            cuda_graphs=graphs,
        )
    )


def seconds(engine: AsyncEngine, load: Workload, plans: Sequence[SteeringPlan | None]) -> float:
    """Time of one batch of requests, after the same batch has run once."""
    for name in ("warm", "timed"):
        begun = time.perf_counter()
        count = asyncio.run(generate(engine, name, load.prompts(), load.new_tokens, [*plans]))
        taken = time.perf_counter() - begun
        assert count == load.num_requests * load.new_tokens, "an answer was cut short"
    return taken


def rows(engine: AsyncEngine, arguments: argparse.Namespace, graphs: str) -> Iterator[str]:
    """A row of the table for every number of profiles and requests."""
    spec = engine.info().spec
    for count in arguments.profiles:
        plans = [profile(i, "ablate", spec) for i in range(count)] or [None]
        for num_requests in arguments.requests:
            # Decoding is told from the prompts before it by the difference of two lengths.
            short, long = (
                seconds(engine, Workload(num_requests, 16, tokens), plans)
                for tokens in (arguments.new_tokens // 4, arguments.new_tokens)
            )
            steps = arguments.new_tokens - arguments.new_tokens // 4
            step = (long - short) / steps
            yield (
                f"| decode | {graphs} | {count} | {num_requests} | {num_requests / step:,.0f} "
                f"| {1e3 * step:.2f} |"
            )
        load = Workload(arguments.requests[-1], arguments.prompt_tokens, 1)
        taken = seconds(engine, load, plans)
        total = load.num_requests * load.prompt_tokens
        yield f"| prefill | {graphs} | {count} | {load.num_requests} | {total / taken:,.0f} | |"


def main(options: Sequence[str] | None = None) -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=_SIZES, default="1b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profiles", type=int, nargs="+", default=[0, 32, 256])
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    arguments = parser.parse_args(options)
    card = torch.cuda.get_device_name() if arguments.device != "cpu" else "CPU"
    print(f"{arguments.size} Llama on {card}, torch {torch.__version__}\n")
    print(
        "| what | graphs | profiles | requests | tokens/s | ms a step |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llama"
        write_llama(path, **_SIZES[arguments.size])
        for graphs in ("auto", "off"):
            engine = engine_of(path, arguments.device, graphs)
            for row in rows(engine, arguments, graphs):
                print(row, flush=True)
            modes = {mode.value: n for mode, n in engine.stats().steps_by_mode.items()}
            print(f"\nsteps: {modes}\n", flush=True)
            engine.close()
            del engine


if __name__ == "__main__":
    main()
