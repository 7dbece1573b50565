"""The attention that one layer of a loaded model asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

_Positions = TypeVar("_Positions", int, NDArray[np.int64])


class Reach(NamedTuple):
    """Which keys a query sees: all up to itself, or of these only the nearest.

    Attributes:
        window: At position p the keys at (p - window, p]; None means no such limit.
        chunk: At position p the keys at [p - p % chunk, p], as positions fall into chunks; None
            means no such limit. At most one of the two is set.
    """

    window: int | None = None
    chunk: int | None = None

    def first(self, position: _Positions) -> _Positions:
        """The first key position seen from `position`; may be negative under a window."""
        if self.window is not None:
            return position - (self.window - 1)
        if self.chunk is not None:
            return position - position % self.chunk
        return position * 0


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """One layer's attention, as `inspect_attention` found it.

    Attributes:
        layer: Its place in the order of the forward pass, 0-based.
        num_heads: Query heads, H.
        num_kv_heads: Key/value heads, Hkv; divides H.
        key_dim: Width of one query or key head, D.
        value_dim: Width of one value head, Dv.
        scaling: Factor on q.k before soft-cap and softmax.
        window: A query at position p sees keys (p - window, p]; None means no such limit.
        softcap: Scores become softcap * tanh(score / softcap); None means as they are.
        dtype: Data type of queries, keys and values.
        device: Device of queries, keys and values.
        chunk: A query at position p sees keys [p - p % chunk, p]; None means no such limit.
        has_sinks: Whether each query head has a sink: a score that takes part in the softmax
            and has no value (gpt-oss). The layer then gets them, [H], at each call.
    """

    layer: int
    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    scaling: float
    window: int | None
    softcap: float | None
    dtype: torch.dtype
    device: torch.device
    chunk: int | None = None
    has_sinks: bool = False

    @property
    def reach(self) -> Reach:
        """Which keys a query sees."""
        return Reach(self.window, self.chunk)

    @property
    def num_groups(self) -> int:
        """Query heads that share one key/value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token adds to the cache."""
        return self.num_kv_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize
