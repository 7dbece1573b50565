"""Attention of single tokens that reads pages in place: one Triton kernel, on CUDA."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor

from .spec import AttentionSpec

_TILE: Final = 64  # keys that one program reads at once
_LEAST_DOT: Final = 16  # rows that a matrix product of the hardware has at least


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """The first sequences of a step, of one token each.

    Attributes:
        table: Blocks of each sequence in order, [N, W] int32; what stands behind them is not read.
        lengths: Tokens of each context, its last token included, [N] int32; at least one.
    """

    table: Tensor
    lengths: Tensor


def reads_pages(device: torch.device) -> bool:
    """Whether `paged_decode` runs on a device."""
    return device.type == "cuda" and find_spec("triton") is not None


def paged_decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    rows: DecodeRows,
    spec: AttentionSpec,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of the last token of each sequence over its pages.

        out = softmax(cap(scaling q k^T)) v,   cap(s) = softcap tanh(s / softcap)

    over the keys within the layer's reach; with a sink its exponential is added to the softmax's
    denominator. Scores and sums are float32. One program for each
    sequence and key/value head, so neither the launch nor what one sequence gets depends on the
    others. Launches one kernel and asks the device nothing.

    Args:
        query: [N, H, D], any strides.
        keys: [num_blocks, block_size, Hkv, D]; elements of a row adjacent, other strides any.
        values: [num_blocks, block_size, Hkv, Dv], likewise.
        rows: Where the N sequences have their keys.
        spec: The layer's.
        sinks: [H], where the layer has sinks.

    Returns:
        [N, H, Dv] in the query's dtype.
    """
    assert keys.stride(3) == values.stride(3) == 1, "elements of a row must be adjacent"
    query = query if query.stride(2) == 1 else query.contiguous()
    out = query.new_empty(len(query), spec.num_heads, spec.value_dim)
    _kernel()[(len(query), spec.num_kv_heads)](
        query,
        keys,
        values,
        out,
        rows.table,
        rows.lengths,
        spec.scaling,
        spec.softcap or 0.0,
        spec.window or spec.chunk or 0,
        query if sinks is None else sinks,
        *query.stride()[:2],
        *keys.stride()[:3],
        *values.stride()[:3],
        *out.stride()[:2],
        rows.table.stride(0),
        PAGE=keys.shape[1],
        GROUP=spec.num_groups,
        GROUP_ROWS=_padded(spec.num_groups),
        D=spec.key_dim,
        D_PADDED=_padded(spec.key_dim),
        DV=spec.value_dim,
        DV_PADDED=_padded(spec.value_dim),
        TILE=_TILE,
        HAS_SOFTCAP=spec.softcap is not None,
        HAS_WINDOW=spec.window is not None,
        HAS_CHUNKS=spec.chunk is not None,
        HAS_SINKS=sinks is not None,
    )
    return out


@cache
def _kernel() -> Any:
    from .paged_decode_kernel import attend_pages

    return attend_pages


def _padded(size: int) -> int:
    """The least power of two that holds `size` and that a product takes."""
    return max(1 << (size - 1).bit_length(), _LEAST_DOT)
