"""The attention that one layer of a loaded model asks for."""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
        window: A query at position p sees keys (p - window, p]; None means all up to p.
        softcap: Scores become softcap * tanh(score / softcap); None means as they are.
        dtype: Data type of queries, keys and values.
        device: Device of queries, keys and values.
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

    @property
    def num_groups(self) -> int:
        """Query heads that share one key/value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token adds to the cache."""
        return self.num_kv_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize
