"""Paged attention by dense products over gathered keys: any device, any dtype, soft-cap."""

from __future__ import annotations

import torch

from .schedule import StepHolder
from .spec import AttentionSpec
from .tiles import Span, Tile, TiledStep

__all__ = ["TiledLayer"]


class TiledLayer:
    """One layer's keys and values, and its attention over them.

    The cache is head-major, [Hkv, num_blocks, block_size, D]: a gather copies whole runs, and
    every product reads rows that lie together. In bfloat16 scores are rounded to bfloat16, as in
    transformers' eager attention; the softmax computes in float32.

    Query heads that share a key/value head are folded into its rows, so no key is repeated.
    """

    def __init__(
        self, spec: AttentionSpec, num_blocks: int, block_size: int, holder: StepHolder[TiledStep]
    ) -> None:
        shape = (spec.num_kv_heads, num_blocks, block_size)
        self.keys = torch.empty(*shape, spec.key_dim, dtype=spec.dtype, device=spec.device)
        self.values = torch.empty(*shape, spec.value_dim, dtype=spec.dtype, device=spec.device)
        self._spec = spec
        self._holder = holder

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Write the step's keys and values to the cache, then attend.

        query [1, H, T, D]; key [1, Hkv, T, D]; value [1, Hkv, T, Dv]. Returns [1, T, H, Dv].
        """
        step = self._holder.step
        _write(self.keys, key[0], step)
        _write(self.values, value[0], step)
        out = query.new_empty(query.shape[2], self._spec.num_heads, self._spec.value_dim)
        for tile in step.tiles[self._spec.window]:
            out[tile.rows] = self._attend(query[0][:, tile.rows], tile)
        return out[None]

    def _attend(self, query: torch.Tensor, tile: Tile) -> torch.Tensor:
        """Attention of a tile's tokens, queries [H, N * t, D] to outputs [N * t, H, Dv]."""
        spec, n, t = self._spec, tile.num_sequences, tile.num_queries
        q = query.view(spec.num_kv_heads, spec.num_groups, n, t, spec.key_dim).transpose(1, 2)
        k = self.keys.index_select(1, tile.blocks).view(spec.num_kv_heads * n, -1, spec.key_dim)
        v = self.values.index_select(1, tile.blocks).view(k.shape[0], -1, spec.value_dim)
        k = k.transpose(1, 2)  # [Hkv * N, D, keys]
        if len(tile.spans) > 1:
            k = k.contiguous()  # a product that is repeated is faster on rows of keys
        parts = [self._attend_span(q, k, v, span) for span in tile.spans]
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)
        mixed = mixed.permute(1, 3, 0, 2, 4)  # [N, t, Hkv, group, Dv]
        return mixed.reshape(n * t, spec.num_heads, spec.value_dim)

    def _attend_span(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, span: Span
    ) -> torch.Tensor:
        """Mixed values of a span's queries, [Hkv, N, group, queries, Dv]."""
        q = q[:, :, :, span.q_start : span.q_stop]
        k, v = k[:, :, span.k_start : span.k_stop], v[:, span.k_start : span.k_stop]
        heads, rows = q.shape[:4], q.reshape(k.shape[0], -1, k.shape[1])
        scores = torch.baddbmm(rows.new_empty(1, 1, 1), rows, k, beta=0, alpha=self._spec.scaling)
        if self._spec.softcap is not None:
            scores = scores.div_(self._spec.softcap).tanh_().mul_(self._spec.softcap)
        if span.hidden is not None:
            by_head = scores.view(*heads, -1)[..., span.hidden_start - span.k_start :]
            by_head.masked_fill_(span.hidden, -torch.inf)
        mixed = torch.bmm(scores.softmax(dim=-1), v).view(*heads, -1)
        self._holder.beat()
        return mixed


def _write(cache: torch.Tensor, new: torch.Tensor, step: TiledStep) -> None:
    slots = cache.flatten(1, 2)
    slots.index_fill_(1, step.cleared, 0)
    if isinstance(step.slots, torch.Tensor):
        slots.index_copy_(1, step.slots, new)
        return
    for row, slot, length in step.slots:
        slots[:, slot : slot + length] = new[:, row : row + length]
