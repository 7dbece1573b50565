"""How much memory is free, and how many blocks of keys and values fit into it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from server.engine.attention import AttentionSpec
from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")
# glibc's malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGEST: Final = 2**31 - 1
_CPU_SHARE: Final = 0.25
_CPU_MOST: Final = 4 * 2**30

_CUDA_SHARE: Final = 0.7
"""The rest is left to activations, logits and the allocator's slack."""


def free_memory_bytes() -> int:
    """Bytes this process may still take: the machine's, or its control group's if less.

    `psutil` knows the machine's alone; a container's limit is what ends a process there.
    Pages of files that were read once count as free, since the kernel drops them first: those of
    a checkpoint that was just copied into a container may be most of what it "uses".
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _MEMINFO.is_file():  # counts what the kernel would give back, unlike sysconf
        fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = (_CGROUP / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()) + _idle_file_bytes())
    return max(free, 0)


def _idle_file_bytes() -> int:
    """Bytes of files that count as used by this control group, but are dropped first."""
    path = _CGROUP / "memory.stat"
    if not path.is_file():
        return 0
    fields = dict(line.split() for line in path.read_text().splitlines())
    return int(fields.get("inactive_file", 0))


def keep_freed_memory() -> None:
    """Let the allocator keep freed memory instead of handing it back to the kernel.

    Every step frees and takes again the same few tens of megabytes. By default glibc returns
    them, and the kernel zeroes them page by page for the next step: a tenth of a prefill. One
    arena, because those of other threads are too small to keep them. Changes the whole process;
    does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST)


@dataclass(frozen=True, slots=True)
class KVMemory:
    """The cache's size, and the context length it allows.

    Attributes:
        num_blocks: Number of blocks of `block_size` tokens.
        num_bytes: Bytes of all layers in sum.
        max_model_len: Longest prompt plus answer in tokens.
    """

    num_blocks: int
    num_bytes: int
    max_model_len: int


def context_limit(config: EngineConfig, max_positions: int | None) -> int:
    """The longest prompt plus answer that is asked for: what is set, or the model's own.

    Raises:
        ModelLoadError: It is longer than the model's, or neither says.
    """
    if max_positions is None and not config.max_model_len:
        raise ModelLoadError(
            "max_model_len is 0 (automatic), but the model's configuration does not say how long "
            "its context is; set max_model_len",
            param="max_model_len",
        )
    if max_positions is not None and config.max_model_len > max_positions:
        raise ModelLoadError(
            f"max_model_len is {config.max_model_len}; the model was made for {max_positions} "
            "positions, set at most that",
            param="max_model_len",
        )
    return config.max_model_len or max_positions or 0


def plan_kv_memory(
    config: EngineConfig, specs: Sequence[AttentionSpec], max_positions: int | None
) -> KVMemory:
    """Size the cache by `kv_cache_bytes`, or by a share of what is free on each device.

    Never larger than all `max_num_seqs` sequences at full length need. An automatic context
    length is the model's own, or what fits if that is less.

    Args:
        config: Its `max_model_len` and `kv_cache_bytes` may be 0, for automatic.
        specs: The layers; they may lie on several devices and differ in width.
        max_positions: Positions the model was made for, where its configuration says.

    Raises:
        ModelLoadError: The context is longer than the model's, or than what fits.
    """
    return plan_blocks(config, _block_bytes(specs, config.block_size), max_positions)


def plan_blocks(
    config: EngineConfig,
    block_bytes: Mapping[torch.device, int],
    max_positions: int | None,
    taken_bytes: int = 0,
) -> KVMemory:
    """`plan_kv_memory` for blocks of known size.

    Args:
        config: As there.
        block_bytes: Bytes of one block of all layers, by device.
        max_positions: As there.
        taken_bytes: Bytes of what is free on each device that will be taken before the cache.
    """
    limit = context_limit(config, max_positions)
    total_bytes = sum(block_bytes.values())
    free = {device: max(free_device_bytes(device) - taken_bytes, 0) for device in block_bytes}
    if config.kv_cache_bytes:
        num_blocks = config.kv_cache_bytes // total_bytes
    else:
        num_blocks = min(
            _share(device, free[device]) // size for device, size in block_bytes.items()
        )
    num_blocks = min(num_blocks, config.max_num_seqs * -(-limit // config.block_size))
    _check_fits(num_blocks, block_bytes, free)
    capacity = num_blocks * config.block_size
    if not capacity or (config.max_model_len and capacity < config.max_model_len):
        raise ModelLoadError(
            f"the memory for keys and values holds {capacity} tokens, at "
            f"{total_bytes // config.block_size} bytes a token; max_model_len is {limit}. Set "
            "kv_cache_bytes to more, or max_model_len to less",
            param="kv_cache_bytes" if config.kv_cache_bytes else "max_model_len",
        )
    return KVMemory(num_blocks, num_blocks * total_bytes, min(limit, capacity))


def _check_fits(
    num_blocks: int, block_bytes: Mapping[torch.device, int], free: Mapping[torch.device, int]
) -> None:
    for device, size in block_bytes.items():
        if num_blocks * size > free[device]:
            raise ModelLoadError(
                f"kv_cache_bytes asks for {num_blocks * size} bytes on {device}; {free[device]} "
                "are free. Set less, or 0 for a share of what is free",
                param="kv_cache_bytes",
            )


def _block_bytes(specs: Sequence[AttentionSpec], block_size: int) -> dict[torch.device, int]:
    sizes: dict[torch.device, int] = defaultdict(int)
    for spec in specs:
        sizes[spec.device] += spec.kv_bytes_per_token * block_size
    return sizes


def free_device_bytes(device: torch.device) -> int:
    """Bytes that may still be taken on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()


def _share(device: torch.device, free: int) -> int:
    if device.type == "cuda":
        return int(free * _CUDA_SHARE)
    return min(int(free * _CPU_SHARE), _CPU_MOST)
