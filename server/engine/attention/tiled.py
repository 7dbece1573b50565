"""Paged attention by dense products over gathered keys: all that an `AttentionSpec` can ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .paged_decode import DecodeRows, paged_decode, reads_pages
from .schedule import (
    ScheduledSequence,
    SlotRun,
    StepHolder,
    leading_decodes,
    paged_contexts,
    runs_of,
    slots_to_clear,
    slots_to_write,
)
from .spec import AttentionSpec, Reach

# Queries of one product: few enough that scores stay in the cache, enough to be worth a call.
_MAX_QUERIES: Final = 64
_MIN_QUERIES: Final = 16
_LONG_RUN: Final = 32  # tokens, on average, from which writing runs pays
# What is gathered or computed at once stays in a core's own cache until it is used.
_CPU_ELEMENTS: Final = 1 << 21
_CUDA_ELEMENTS: Final = 1 << 25


class Span(NamedTuple):
    """Queries [q_start, q_stop) of a tile against its gathered keys [k_start, k_stop).

    `hidden` [N, 1, queries, k_stop - hidden_start] is True where a query must not see a key;
    keys before `hidden_start` are seen by all. None where all see everything.
    """

    q_start: int
    q_stop: int
    k_start: int
    k_stop: int
    hidden_start: int
    hidden: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Tile:
    """N sequences with equally many tokens, whose keys are gathered together.

    Attributes:
        rows: Rows of their tokens in the pack, sequence after sequence [N * num_queries]; a
            slice where they are adjacent.
        num_sequences: N.
        num_queries: Tokens of each sequence.
        blocks: Cache blocks of each, padded with its own to one length, [N * num_blocks].
        spans: The products to compute.
        run: Cache slots of all keys that are seen, where they follow one another and belong to one
            query of one sequence; else None.
    """

    rows: torch.Tensor | slice
    num_sequences: int
    num_queries: int
    blocks: torch.Tensor
    spans: tuple[Span, ...]
    run: slice | None


@dataclass(frozen=True, slots=True)
class TiledStep:
    """One step's inputs, shared by every tiled layer of one device.

    Attributes:
        slots: Cache slot of every packed token, [T], or the runs they fall into where those are
            long: copying a run is several times faster than copying its rows by index.
        cleared: Slots to set to zero first; None where there are none.
        tiles: Tiles by reach; those of a reach cover every packed token once, but those of
            `decode`.
        decode: The first sequences, where a kernel reads their pages in place; else None.
    """

    slots: torch.Tensor | tuple[SlotRun, ...]
    cleared: torch.Tensor | None
    tiles: Mapping[Reach, tuple[Tile, ...]]
    decode: DecodeRows | None = None


class _PackedSequence(NamedTuple):
    """A sequence in the pack, and the cache blocks that its reach lets it see."""

    row: int
    num_queries: int
    start: int  # its first query, counted from its first gathered key
    base: int  # position of its first gathered key
    blocks: Sequence[int]


class TilePlanner:
    """Plans the steps of the tiled layers of one device.

    A plan costs some microseconds per sequence and distinct reach on the host, and a few
    small copies to the device; it never waits for the device.

    Args:
        specs: The layers, at least one.
        block_size: Tokens in one cache block.

    Attributes:
        max_elements: Most keys or scores that are gathered or computed at once.
        reads_pages: Whether the pages of sequences that decode are read in place.
    """

    def __init__(self, specs: Sequence[AttentionSpec], block_size: int) -> None:
        self._device = specs[0].device
        self._reaches = {spec.reach for spec in specs}
        self._num_heads = max(spec.num_heads for spec in specs)
        self._kv_width = max(spec.num_kv_heads * spec.key_dim for spec in specs)
        self._block_size = block_size
        self.max_elements = _CPU_ELEMENTS if self._device.type == "cpu" else _CUDA_ELEMENTS
        self.reads_pages = reads_pages(self._device)

    def plan(self, sequences: Sequence[ScheduledSequence]) -> TiledStep:
        """The work of one step; sequences are packed in the order given."""
        num_decode = leading_decodes(sequences) if self.reads_pages else 0
        decode = paged_contexts(sequences[:num_decode], self._block_size) if num_decode else None
        cleared = slots_to_clear(sequences, self._block_size)
        return TiledStep(
            slots=self._slots(slots_to_write(sequences, self._block_size)),
            cleared=self._tensor(cleared) if len(cleared) else None,
            tiles={
                reach: tuple(
                    self._tile(group, reach) for group in self._groups(sequences, reach, num_decode)
                )
                for reach in self._reaches
            },
            decode=None if decode is None else DecodeRows(*map(self._tensor, decode)),
        )

    def paged_step(self, tensors: Mapping[str, torch.Tensor]) -> TiledStep:
        """A step of sequences with one token each over tensors that others write.

        Args:
            tensors: slots [N] and cleared [any] int64, lengths [N] and table [N, W] int32.
        """
        rows = DecodeRows(tensors["table"], tensors["lengths"])
        none = dict[Reach, tuple[Tile, ...]].fromkeys(self._reaches, ())
        return TiledStep(tensors["slots"], tensors["cleared"], none, rows)

    def _slots(self, slots: NDArray[np.int64]) -> torch.Tensor | tuple[SlotRun, ...]:
        runs = runs_of(slots)
        return tuple(runs) if len(runs) * _LONG_RUN <= len(slots) else self._tensor(slots)

    def _groups(
        self, sequences: Sequence[ScheduledSequence], reach: Reach, first: int
    ) -> Iterator[list[_PackedSequence]]:
        """Sequences from `first` on, of equal token count and similar context, as many as fit."""
        placed = _place(sequences, reach, self._block_size)[first:]
        # Longest first within a token count: the first of a group then sets what the others pad to.
        placed.sort(key=lambda p: (p.num_queries, -len(p.blocks)))
        group: list[_PackedSequence] = []
        for candidate in placed:
            if group and not self._fits(candidate, group):
                yield group
                group = []
            group.append(candidate)
        if group:
            yield group

    def _fits(self, candidate: _PackedSequence, group: list[_PackedSequence]) -> bool:
        # Padding is gathered and multiplied for nothing: a quarter of the keys at most, or two
        # blocks. What is computed at once stays in the cache (see _CPU_ELEMENTS).
        longest = group[0]
        padding = len(longest.blocks) - len(candidate.blocks)
        num_keys = (len(group) + 1) * len(longest.blocks) * self._block_size
        num_scores = num_keys * self._num_heads * min(longest.num_queries, _MAX_QUERIES)
        return (
            candidate.num_queries == longest.num_queries
            and padding <= max(2, len(longest.blocks) // 4)
            and max(num_keys * self._kv_width, num_scores) <= self.max_elements
        )

    def _tile(self, group: list[_PackedSequence], reach: Reach) -> Tile:
        num_queries, num_blocks = group[0].num_queries, len(group[0].blocks)
        starts, bases = (
            np.array(of) for of in zip(*((p.start, p.base) for p in group), strict=True)
        )
        rows = (np.array([p.row for p in group])[:, None] + np.arange(num_queries)).reshape(-1)
        is_run = bool((np.diff(rows) == 1).all())
        # Padded with a block of its own: another request's might hold NaN, and 0 * NaN is NaN.
        blocks = [[*p.blocks, *[p.blocks[0]] * (num_blocks - len(p.blocks))] for p in group]
        num_keys = num_blocks * self._block_size
        most = self.max_elements // (self._num_heads * len(group) * num_keys)
        most = min(max(most, _MIN_QUERIES), _MAX_QUERIES, num_queries)
        return Tile(
            rows=slice(rows[0], rows[-1] + 1) if is_run else self._tensor(rows),
            num_sequences=len(group),
            num_queries=num_queries,
            blocks=self._tensor(np.array(blocks).reshape(-1)),
            spans=tuple(
                self._span(
                    starts[:, None] + np.arange(first, min(first + most, num_queries)),
                    bases,
                    first,
                    num_keys,
                    reach,
                )
                for first in range(0, num_queries, most)
            ),
            run=self._run(group, reach),
        )

    def _run(self, group: list[_PackedSequence], reach: Reach) -> slice | None:
        sequence = group[0]
        blocks = sequence.blocks
        if len(group) > 1 or sequence.num_queries > 1:
            return None
        if list(blocks) != list(range(blocks[0], blocks[0] + len(blocks))):
            return None
        first = max(reach.first(sequence.base + sequence.start) - sequence.base, 0)
        slot = blocks[0] * self._block_size
        return slice(slot + first, slot + sequence.start + 1)

    def _span(
        self,
        queries: NDArray[np.int64],
        bases: NDArray[np.int64],
        first: int,
        num_keys: int,
        reach: Reach,
    ) -> Span:
        """Queries [N, t] from the tile's query `first` on, counted from each one's base."""
        seen_from = reach.first(queries + bases[:, None]) - bases[:, None]
        lowest, highest = int(queries.min()), int(queries.max())
        k_start, k_stop = 0, num_keys
        # A slice of the gathered keys costs a copy, which one query alone does not earn back.
        if queries.shape[1] > 1:
            k_start = max(int(seen_from.min()), 0)
            k_stop = highest + 1
        # Keys that all queries of the span see need no mask: those up to the lowest query, unless
        # some of them are beyond the reach of another.
        is_cut = int(seen_from.max()) > k_start
        hidden_start = k_start if is_cut else min(lowest + 1, k_stop)
        keys = np.arange(hidden_start, k_stop)
        hidden = keys > queries[:, None, :, None]
        if is_cut:
            hidden |= keys < seen_from[:, None, :, None]
        mask = self._tensor(hidden) if hidden.any() else None
        return Span(first, first + queries.shape[1], k_start, k_stop, hidden_start, mask)

    def _tensor(
        self, array: NDArray[np.int64] | NDArray[np.int32] | NDArray[np.bool_]
    ) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)


def _place(
    sequences: Sequence[ScheduledSequence], reach: Reach, block_size: int
) -> list[_PackedSequence]:
    placed, row = [], 0
    for sequence in sequences:
        first = max(reach.first(sequence.start), 0) // block_size
        stop = -(-sequence.stop // block_size)
        blocks = sequence.block_table[first:stop]
        assert len(blocks) == stop - first, "a block table is shorter than its context"
        base = first * block_size
        placed.append(
            _PackedSequence(row, sequence.num_tokens, sequence.start - base, base, blocks)
        )
        row += sequence.num_tokens
    return placed


class TiledLayer:
    """One layer's keys and values, and its attention over them.

    The cache is head-major, [Hkv, num_blocks, block_size, D]: a gather copies whole runs, and
    every product reads adjacent rows. In bfloat16 scores are rounded to bfloat16, as in
    transformers' eager attention; the softmax computes in float32.

    Query heads that share a key/value head are folded into its rows, so no key is repeated.
    """

    def __init__(
        self, spec: AttentionSpec, num_blocks: int, block_size: int, holder: StepHolder[TiledStep]
    ) -> None:
        shape = (spec.num_kv_heads, num_blocks, block_size)
        self.keys = torch.empty(*shape, spec.key_dim, dtype=spec.dtype, device=spec.device)
        self.values = torch.empty(*shape, spec.value_dim, dtype=spec.dtype, device=spec.device)
        self._key_slots = self.keys.flatten(1, 2)[None]  # [1, Hkv, slots, D]
        self._value_slots = self.values.flatten(1, 2)[None]
        self._spec = spec
        self._reach = spec.reach
        self._holder = holder
        # What torch's fused attention on the CPU can do.
        self._is_fusible = (
            spec.device.type == "cpu"
            and spec.softcap is None
            and not spec.has_sinks
            and spec.key_dim == spec.value_dim
        )

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Write the step's keys and values to the cache, then attend.

        query [1, H, T, D]; key [1, Hkv, T, D]; value [1, Hkv, T, Dv]; sinks [H], the score of
        each head's sink, where the layer has them. Returns [1, T, H, Dv].
        """
        step = self._holder.step
        _write(self._key_slots, key, step)
        _write(self._value_slots, value, step)
        tiles = step.tiles[self._reach]
        if len(tiles) == 1 and tiles[0].run is not None and self._is_fusible:
            return self._attend_run(query, tiles[0].run)
        out = query.new_empty(query.shape[2], self._spec.num_heads, self._spec.value_dim)
        if step.decode is not None:
            rows = len(step.decode.lengths)
            keys, values = (cache.permute(1, 2, 0, 3) for cache in (self.keys, self.values))
            queries = query[0].transpose(0, 1)[:rows]
            out[:rows] = paged_decode(queries, keys, values, step.decode, self._spec, sinks)
        for tile in tiles:
            if isinstance(tile.rows, slice):
                self._attend(query[0][:, tile.rows], tile, sinks, out[tile.rows])
                continue
            mixed = out.new_empty(len(tile.rows), *out.shape[1:])
            self._attend(query[0][:, tile.rows], tile, sinks, mixed)
            out[tile.rows] = mixed
        return out[None]

    def _attend_run(self, query: torch.Tensor, run: slice) -> torch.Tensor:
        """Attention of the step's only token, [1, H, 1, D], to keys that lie together.

        They are read where they are, by one kernel that computes in float32: [1, 1, H, Dv].
        """
        spec = self._spec
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query.view(1, spec.num_kv_heads, spec.num_groups, spec.key_dim),
            self._key_slots[:, :, run],
            self._value_slots[:, :, run],
            scale=spec.scaling,
        )
        self._holder.beat()
        return mixed.reshape(1, 1, spec.num_heads, spec.value_dim)

    def _attend(
        self, query: torch.Tensor, tile: Tile, sinks: torch.Tensor | None, out: torch.Tensor
    ) -> None:
        """Write the attention of a tile's tokens, queries [H, N * t, D], to out [N * t, H, Dv]."""
        spec, n, t = self._spec, tile.num_sequences, tile.num_queries
        q = query.view(spec.num_kv_heads, spec.num_groups, n, t, spec.key_dim).transpose(1, 2)
        k = self.keys.index_select(1, tile.blocks).view(spec.num_kv_heads * n, -1, spec.key_dim)
        v = self.values.index_select(1, tile.blocks).view(k.shape[0], -1, spec.value_dim)
        k = k.transpose(1, 2)  # [Hkv * N, D, keys]
        if len(tile.spans) > 1:
            k = k.contiguous()  # a product that is repeated is faster on rows of keys
        by_head = out.view(n, t, spec.num_kv_heads, spec.num_groups, spec.value_dim)
        by_head = by_head.permute(2, 0, 3, 1, 4)  # [Hkv, N, group, t, Dv]
        for span in tile.spans:
            mixed = self._attend_span(q, k, v, span, sinks)
            by_head[:, :, :, span.q_start : span.q_stop] = mixed

    def _attend_span(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        span: Span,
        sinks: torch.Tensor | None,
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
        weights = scores.softmax(dim=-1) if sinks is None else _with_sinks(scores, sinks, heads)
        mixed = torch.bmm(weights, v).view(*heads, -1)
        self._holder.beat()
        return mixed


def _with_sinks(scores: torch.Tensor, sinks: torch.Tensor, heads: torch.Size) -> torch.Tensor:
    """Softmax of scores [Hkv * N, group * queries, keys] and one more score, which then drops out.

    heads is [Hkv, N, group, queries]; the sinks [H] are those of the Hkv * group query heads.
    """
    own = sinks.to(scores.dtype).view(heads[0], 1, heads[2], 1).expand(heads)
    return torch.cat([scores, own.reshape(*scores.shape[:2], 1)], dim=-1).softmax(dim=-1)[..., :-1]


def _write(slots: torch.Tensor, new: torch.Tensor, step: TiledStep) -> None:
    """Copy new [1, Hkv, T, D] to the step's slots of [1, Hkv, slots, D]."""
    if step.cleared is not None:
        slots.index_fill_(2, step.cleared, 0)
    if isinstance(step.slots, torch.Tensor):
        slots.index_copy_(2, step.slots, new)
        return
    for row, slot, length in step.slots:
        slots[:, :, slot : slot + length] = new[:, :, row : row + length]
