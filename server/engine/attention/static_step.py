"""Attention of a decode step that is captured once and replayed, over static buffers.

Every sequence runs one token. What shapes such a step is the number of sequences and how many
blocks each has room for; slots, block tables and lengths are data. Sequences that are not there
write to, and read from, a block of their own that no request is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from steering.runtime import Field, StaticBuffers

from .schedule import ScheduledSequence, StepHolder
from .spec import AttentionSpec, Reach
from .tiled import Span, Tile, TiledStep, TilePlanner
from .varlen import VarlenPlanner, VarlenStep

_LEAST_TILED: Final = 8  # blocks: a gathered context costs what it has room for
_LEAST_PAGED: Final = 256  # blocks: a kernel that reads pages stops where the context ends


@dataclass(frozen=True, slots=True)
class StaticSize:
    """What shapes the attention of a step.

    Attributes:
        num_rows: Sequences, those that are not there included.
        num_blocks: Blocks that each has room for.
        block_size: Tokens in a block.
        spare_block: The block that no request is given.
    """

    num_rows: int
    num_blocks: int
    block_size: int
    spare_block: int

    def padded(self, sequences: Sequence[ScheduledSequence]) -> list[ScheduledSequence]:
        """The sequences, and in the places left over one token in the spare block."""
        missing = self.num_rows - len(sequences)
        return [*sequences, *[ScheduledSequence([self.spare_block], 0, 1)] * missing]

    def slots(self, rows: Sequence[ScheduledSequence]) -> tuple[NDArray[np.int64], ...]:
        """Slot of each row's token [N], and those behind it in its block [N * block_size].

        The latter are filled up with the token's own, which is written after it was cleared.
        """
        size = self.block_size
        offsets = np.array([row.start % size for row in rows])
        first = np.array([row.block_table[row.start // size] * size for row in rows])
        own, within = (first + offsets)[:, None], np.arange(size)
        behind = np.where(within > offsets[:, None], first[:, None] + within, own)
        return own[:, 0], behind.reshape(-1)


def room_for(num_blocks: int, most: int, *, reads_pages: bool) -> int:
    """Blocks that a captured step has room for where `num_blocks` are needed and `most` exist."""
    least = _LEAST_PAGED if reads_pages else _LEAST_TILED
    return min(max(1 << (num_blocks - 1).bit_length(), least), most)


class StaticTiles:
    """The step of layers that gather their keys.

    Of each reach the sequences form tiles of fixed size, so many that what is gathered at once
    stays within the planner's bound. Slots behind the last token are cleared in every step, not
    only where a block is entered: which these are is data, how many is not.
    """

    def __init__(
        self, planner: TilePlanner, specs: Sequence[AttentionSpec], size: StaticSize
    ) -> None:
        self._size = size
        self._reaches = {spec.reach: self._blocks_seen(spec.reach) for spec in specs}
        width = max(spec.num_kv_heads * spec.key_dim for spec in specs)
        heads = max(spec.num_heads for spec in specs)
        keys = size.num_blocks * size.block_size
        self._rows_at_once = max(1, planner.max_elements // (keys * max(width, heads)))

    @property
    def fields(self) -> dict[str, Field]:
        """The arrays it needs in the buffers."""
        rows, size = self._size.num_rows, self._size.block_size
        found = {
            "slots": Field((rows,), np.int64),
            "cleared": Field((rows * size,), np.int64),
        }
        for reach, blocks in self._reaches.items():
            found[f"blocks.{_name(reach)}"] = Field((rows * blocks,), np.int64)
            found[f"hidden.{_name(reach)}"] = Field((rows, 1, 1, blocks * size), np.bool_)
        return found

    def step(self, tensors: dict[str, Any]) -> TiledStep:
        """The step over the buffers' tensors, named as `fields`."""
        return TiledStep(
            slots=tensors["slots"],
            cleared=tensors["cleared"],
            tiles={reach: tuple(self._tiles(reach, tensors)) for reach in self._reaches},
        )

    def load(self, sequences: Sequence[ScheduledSequence], arrays: dict[str, Any]) -> None:
        """Write a step's sequences to the buffers' arrays, named as `fields`."""
        rows = self._size.padded(sequences)
        arrays["slots"][:], arrays["cleared"][:] = self._size.slots(rows)
        for reach, blocks in self._reaches.items():
            self._load_reach(reach, blocks, rows, arrays)

    def _load_reach(
        self,
        reach: Reach,
        num_blocks: int,
        rows: Sequence[ScheduledSequence],
        arrays: dict[str, Any],
    ) -> None:
        size = self._size.block_size
        blocks = arrays[f"blocks.{_name(reach)}"].reshape(len(rows), num_blocks)
        positions = np.array([row.start for row in rows])
        seen_from = np.maximum(reach.first(positions), 0)
        bases = seen_from // size * size
        for index, (row, base) in enumerate(zip(rows, bases, strict=True)):
            first = int(base) // size
            seen = row.block_table[first : row.start // size + 1]
            blocks[index, : len(seen)] = seen
            # Padded with a block of its own: another request's might hold NaN, and 0 * NaN is NaN.
            blocks[index, len(seen) :] = seen[0]
        keys = np.arange(num_blocks * size) + bases[:, None]
        hidden = (keys > positions[:, None]) | (keys < seen_from[:, None])
        arrays[f"hidden.{_name(reach)}"][:] = hidden[:, None, None]

    def _tiles(self, reach: Reach, tensors: dict[str, Any]) -> list[Tile]:
        blocks, size = self._reaches[reach], self._size.block_size
        tiles = []
        for start in range(0, self._size.num_rows, self._rows_at_once):
            stop = min(start + self._rows_at_once, self._size.num_rows)
            hidden = tensors[f"hidden.{_name(reach)}"][start:stop]
            tiles.append(
                Tile(
                    rows=slice(start, stop),
                    num_sequences=stop - start,
                    num_queries=1,
                    blocks=tensors[f"blocks.{_name(reach)}"][start * blocks : stop * blocks],
                    spans=(Span(0, 1, 0, blocks * size, 0, hidden),),
                    run=None,
                )
            )
        return tiles

    def _blocks_seen(self, reach: Reach) -> int:
        """Most blocks that what one token sees lies in."""
        most = reach.window or reach.chunk
        if most is None:
            return self._size.num_blocks
        return min(self._size.num_blocks, -(-(most - 1) // self._size.block_size) + 1)


def _name(reach: Reach) -> str:
    return f"{reach.window}.{reach.chunk}"


class StaticPages:
    """The step of layers whose kernel reads pages: torch's own, or that of `paged_decode`."""

    def __init__(self, planner: VarlenPlanner | TilePlanner, size: StaticSize) -> None:
        self._planner = planner
        self._size = size

    @property
    def fields(self) -> dict[str, Field]:
        """The arrays it needs in the buffers."""
        rows = self._size.num_rows
        found = {
            "slots": Field((rows,), np.int64),
            "lengths": Field((rows,), np.int32),
            "table": Field((rows, self._size.num_blocks), np.int32),
        }
        if isinstance(self._planner, TilePlanner):
            return found | {"cleared": Field((rows * self._size.block_size,), np.int64)}
        return found | {"offsets": Field((rows + 1,), np.int32)}

    def step(self, tensors: dict[str, Any]) -> VarlenStep | TiledStep:
        """The step over the buffers' tensors, named as `fields`."""
        if isinstance(self._planner, TilePlanner):
            return self._planner.paged_step(tensors)
        return self._planner.paged_step(tensors, self._size.num_blocks * self._size.block_size)

    def load(self, sequences: Sequence[ScheduledSequence], arrays: dict[str, Any]) -> None:
        """Write a step's sequences to the buffers' arrays, named as `fields`."""
        rows = self._size.padded(sequences)
        slots, behind = self._size.slots(rows)
        arrays["slots"][:] = slots
        arrays["lengths"][:] = [row.stop for row in rows]
        for line, row in zip(arrays["table"], rows, strict=True):
            used = row.block_table[: row.start // self._size.block_size + 1]
            line[: len(used)] = used
        if "cleared" in arrays:
            arrays["cleared"][:] = behind
        else:
            arrays["offsets"][:] = np.arange(len(rows) + 1)


class StaticAttention:
    """The attention of one captured step: one part for each kind of layer."""

    def __init__(self, parts: Sequence[tuple[StepHolder[Any], StaticTiles | StaticPages]]) -> None:
        self._parts = tuple(parts)
        self._buffers: StaticBuffers | None = None

    @property
    def fields(self) -> dict[str, Field]:
        """The arrays it needs in the buffers."""
        return {
            f"attention.{index}.{name}": field
            for index, (_, part) in enumerate(self._parts)
            for name, field in part.fields.items()
        }

    def bind(self, buffers: StaticBuffers) -> None:
        """Take the buffers that have its `fields`."""
        self._buffers = buffers

    def begin(self) -> None:
        """Set what the run that is captured does: attend as the buffers say."""
        assert self._buffers is not None, "begin before bind"
        for index, (holder, part) in enumerate(self._parts):
            holder.step = part.step(self._own(index, part, self._buffers.tensors))

    def load(self, sequences: Sequence[ScheduledSequence]) -> None:
        """Write a step's sequences, of one token each, to the host's side of the buffers."""
        assert self._buffers is not None, "load before bind"
        for index, (_, part) in enumerate(self._parts):
            part.load(sequences, self._own(index, part, self._buffers.host))

    @staticmethod
    def _own(index: int, part: StaticTiles | StaticPages, arrays: dict[str, Any]) -> dict[str, Any]:
        return {name: arrays[f"attention.{index}.{name}"] for name in part.fields}
