"""How many blocks of keys and values fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from server.engine.attention import AttentionSpec
from server.engine.config import EngineConfig
from server.engine.errors import ModelLoadError

from .host_memory import free_memory_bytes

__all__ = ["KVMemory", "context_limit", "free_device_bytes", "plan_kv_memory"]

_CPU_SHARE: Final = 0.25
_CPU_MOST: Final = 4 * 2**30
_CUDA_SHARE: Final = 0.7
"""The rest is left to activations, logits and the allocator's slack."""


@dataclass(frozen=True, slots=True)
class KVMemory:
    """The cache's size, and the context length it allows.

    Attributes:
        num_blocks: Blocks of `block_size` tokens.
        num_bytes: Of all layers together.
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
    limit = context_limit(config, max_positions)
    block_bytes = _block_bytes(specs, config.block_size)
    total_bytes = sum(block_bytes.values())
    if config.kv_cache_bytes:
        num_blocks = config.kv_cache_bytes // total_bytes
    else:
        num_blocks = min(_share_bytes(device) // size for device, size in block_bytes.items())
    num_blocks = min(num_blocks, config.max_num_seqs * -(-limit // config.block_size))
    _check_fits(num_blocks, block_bytes)
    capacity = num_blocks * config.block_size
    if not capacity or (config.max_model_len and capacity < config.max_model_len):
        raise ModelLoadError(
            f"the memory for keys and values holds {capacity} tokens, at "
            f"{total_bytes // config.block_size} bytes a token; max_model_len is {limit}. Set "
            "kv_cache_bytes to more, or max_model_len to less",
            param="kv_cache_bytes" if config.kv_cache_bytes else "max_model_len",
        )
    return KVMemory(num_blocks, num_blocks * total_bytes, min(limit, capacity))


def _check_fits(num_blocks: int, block_bytes: Mapping[torch.device, int]) -> None:
    for device, size in block_bytes.items():
        if num_blocks * size > (free := free_device_bytes(device)):
            raise ModelLoadError(
                f"kv_cache_bytes asks for {num_blocks * size} bytes on {device}; {free} are free. "
                "Set less, or 0 for a share of what is free",
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


def _share_bytes(device: torch.device) -> int:
    free = free_device_bytes(device)
    if device.type == "cuda":
        return int(free * _CUDA_SHARE)
    return min(int(free * _CPU_SHARE), _CPU_MOST)
