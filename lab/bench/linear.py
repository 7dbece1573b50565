"""Plain against packed weights of linear maps on the CPU, one thread.

    python -m lab.bench.linear [--repeats 15]

The maps of 12 layers of the 124 M model, so that weights come from memory as they do in serving.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from server.engine.cpu import pack_linear

_SHAPES = ((768, 768), (768, 256), (768, 256), (768, 768), (768, 2048), (768, 2048), (2048, 768))


def milliseconds(layers: nn.ModuleList, num_tokens: int, dtype: torch.dtype, repeats: int) -> float:
    """Fewest processor milliseconds of all maps on `num_tokens` tokens."""
    inputs = {width: torch.randn(num_tokens, width).to(dtype) for width in (768, 2048)}
    fewest = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for layer in layers:
            layer(inputs[layer.in_features])  # type: ignore[index]
        fewest = min(fewest, time.process_time() - start)
    return 1e3 * fewest


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=15)
    repeats = options.parse_args().repeats
    torch.set_num_threads(1)
    print("| dtype | tokens | plain, ms | packed, ms |\n|---|---|---|---|")
    for dtype in (torch.bfloat16, torch.float32):
        plain, packed = (
            nn.ModuleList(
                nn.Linear(*shape, bias=False, dtype=dtype).requires_grad_(False)
                for _ in range(12)
                for shape in _SHAPES
            )
            for _ in range(2)
        )
        pack_linear(packed)
        for num_tokens in (1, 32, 2048):
            count = repeats if num_tokens < 2048 else max(repeats // 5, 2)
            times = [milliseconds(way, num_tokens, dtype, count) for way in (plain, packed)]
            name = str(dtype).removeprefix("torch.")
            print(f"| {name} | {num_tokens} | {times[0]:.1f} | {times[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
