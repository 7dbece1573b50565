"""The devices a model runs on and its data type; resolves "auto" once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Final

import torch

from server.engine.attention import AttentionSpec
from server.engine.errors import ModelLoadError

_STRATEGIES: Final = ("auto", "balanced", "balanced_low_0", "sequential")
_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def resolve_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first CUDA device, or the CPU where there is none.

    Raises:
        ModelLoadError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "cuda" and (device.index or 0) < torch.cuda.device_count():
        return torch.device("cuda", device.index or 0)
    raise ModelLoadError(
        f"device is {name!r}, but this machine has {_available_devices()}; choose one of them or "
        "'auto'",
        param="device",
    )


def resolve_device_map(name: str, device: torch.device) -> str | dict[str, torch.device]:
    """How layers are spread, as transformers takes it; `none` puts all on `device`.

    Raises:
        ModelLoadError: There is no such strategy.
    """
    if name == "none":
        return {"": device}
    if name not in _STRATEGIES:
        raise ModelLoadError(
            f"device_map is {name!r}; expected none, {', '.join(_STRATEGIES)}", param="device_map"
        )
    return name


def resolve_dtype(name: str, checkpoint_dtype: torch.dtype | None) -> torch.dtype:
    """The dtype called `name`; `auto` is the checkpoint's.

    Raises:
        ModelLoadError: It is none of float32, bfloat16 and float16.
    """
    if name == "auto":
        dtype = checkpoint_dtype or torch.float32
        if dtype in _DTYPES.values():
            return dtype
        raise ModelLoadError(
            f"the checkpoint's dtype is {dtype}; name one of {', '.join(_DTYPES)}", param="dtype"
        )
    if name not in _DTYPES:
        raise ModelLoadError(
            f"dtype is {name!r}; expected auto, {', '.join(_DTYPES)}", param="dtype"
        )
    return _DTYPES[name]


def physical_cores() -> int:
    """Cores this process may run on, counting hardware threads of one core once.

    `psutil.cpu_count(logical=False)` counts the machine's, whatever this process is kept to.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(path.read_text().strip() if path.is_file() else str(cpu))
    return len(siblings)


def placement_summary(specs: tuple[AttentionSpec, ...]) -> str:
    """Readable: `cpu`, or `cuda:0 (12 layers), cuda:1 (12 layers)` where layers are spread."""
    counts = Counter(str(spec.device) for spec in specs)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{device} ({count} layers)" for device, count in counts.items())


def _available_devices() -> str:
    return ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
