"""Plain and packed weights of linear maps on the CPU, one thread, in turn.

    python -m lab.bench.linear [--model DIR] [--rows 1 2 4 8 16 32] [--repeats 9]

The maps of every layer of a checkpoint, or of 12 layers of the 124 M model, so that weights come
from memory as they do in serving. Prints the fewest processor milliseconds of all of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from server.engine.cpu import LinearProduct, has_float16_products

_SHAPES = ((768, 768), (256, 768), (256, 768), (768, 768), (2048, 768), (2048, 768), (768, 2048))
_Map = Callable[[Tensor], Tensor]


def weights_of(folder: str | None, dtype: torch.dtype) -> list[Tensor]:
    """The matrices [N, K] of a checkpoint's folder, tied ones once, or those of the 124 M model."""
    if folder is None:
        return [(torch.randn(*shape) / 8).to(dtype) for _ in range(12) for shape in _SHAPES]
    files = sorted(Path(folder).glob("*.safetensors"))
    found = [tensor for file in files for tensor in load_file(file).values()]
    return [tensor.to(dtype) for tensor in found if tensor.dim() == 2]


def ways(weights: list[Tensor]) -> dict[str, list[_Map]]:
    """The maps of all weights, by the way in which they are computed."""
    packed = [LinearProduct(weight, None, in_float16=has_float16_products()) for weight in weights]
    found: dict[str, list[_Map]] = {
        "plain": [lambda x, w=w: torch.nn.functional.linear(x, w) for w in weights],  # type: ignore[misc]
        "packed": list(packed),
    }
    if all(product.has_float16 for product in packed):
        found["float16"] = [product.by_float16 for product in packed]
    return found


def milliseconds(maps: list[_Map], inputs: list[Tensor]) -> float:
    """Processor milliseconds of each map on its input."""
    start = time.process_time()
    for each, x in zip(maps, inputs, strict=True):
        each(x)
    return 1e3 * (time.process_time() - start)


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", help="folder of a checkpoint in safetensors")
    options.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    options.add_argument("--repeats", type=int, default=9)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    for dtype in (torch.bfloat16, torch.float32):
        weights = weights_of(arguments.model, dtype)
        columns = ways(weights)
        print(f"| {dtype}, rows | {' | '.join(f'{name}, ms' for name in columns)} |", flush=True)
        print("|---" * (1 + len(columns)) + "|")
        for rows in arguments.rows:
            inputs = [torch.randn(rows, weight.shape[1]).to(dtype) for weight in weights]
            fewest = dict.fromkeys(columns, float("inf"))
            for _ in range(arguments.repeats):
                for name, maps in columns.items():
                    fewest[name] = min(fewest[name], milliseconds(maps, inputs))
            print(f"| {rows} | {' | '.join(f'{ms:.1f}' for ms in fewest.values())} |", flush=True)


if __name__ == "__main__":
    main()
