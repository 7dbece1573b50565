"""One step's schedule as attention sees it: its tokens, their cache slots, where layers find it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

_Step = TypeVar("_Step")


class ScheduledSequence(NamedTuple):
    """The tokens of one request that run in this step.

    Attributes:
        block_table: Cache blocks by position // block_size; at least up to the last token here.
        start: Absolute position of the first token that runs; all before it are in the cache.
        num_tokens: Tokens that run, at least one.
        num_stored: Positions written in earlier steps, those to be forgotten included.
    """

    block_table: Sequence[int]
    start: int
    num_tokens: int
    num_stored: int = 0

    @property
    def stop(self) -> int:
        """Length of the context after this step."""
        return self.start + self.num_tokens


class SlotRun(NamedTuple):
    """Packed tokens [row, row + length) whose slots follow one another from `slot`."""

    row: int
    slot: int
    length: int


def runs_of(slots: NDArray[np.int64]) -> list[SlotRun]:
    """The fewest runs that slots [T] fall into, in order."""
    if not len(slots):
        return []
    starts = [0, *(np.flatnonzero(np.diff(slots) != 1) + 1)]
    stops = [*starts[1:], len(slots)]
    return [
        SlotRun(int(start), int(slots[start]), int(stop - start))
        for start, stop in zip(starts, stops, strict=True)
    ]


def slots_to_write(sequences: Sequence[ScheduledSequence], block_size: int) -> NDArray[np.int64]:
    """Cache slot (block * block_size + offset) of every packed token, [T]."""
    parts: list[int] = []
    for table, start, num_tokens, _ in sequences:
        position = start
        while position < start + num_tokens:
            block, offset = divmod(position, block_size)
            run = min(block_size - offset, start + num_tokens - position)
            slot = table[block] * block_size + offset
            parts.extend(range(slot, slot + run))
            position += run
    return np.array(parts, dtype=np.int64)


def leading_decodes(sequences: Sequence[ScheduledSequence]) -> int:
    """How many sequences of one token stand before the first of more; the scheduler puts all so."""
    counts = (index for index, each in enumerate(sequences) if each.num_tokens > 1)
    return next(counts, len(sequences))


def paged_contexts(
    sequences: Sequence[ScheduledSequence], block_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Blocks [N, W] of each context, padded with 0 to those of the longest, and its length [N]."""
    lengths = np.array([sequence.stop for sequence in sequences], dtype=np.int32)
    pages = np.zeros((len(sequences), -(-int(lengths.max()) // block_size)), dtype=np.int32)
    for row, sequence in zip(pages, sequences, strict=True):
        used = sequence.block_table[: -(-sequence.stop // block_size)]
        row[: len(used)] = used
    return pages, lengths


def slots_to_clear(sequences: Sequence[ScheduledSequence], block_size: int) -> NDArray[np.int64]:
    """Slots behind the last token of every block that a sequence enters in this step.

    Such a block is fresh and its tail holds what another request left there. Attention reads
    whole blocks and hides the tail, but hidden is not harmless: 0 * NaN is NaN. The same goes for
    what the sequence itself has written behind its last token and does not count any more.
    """
    parts: list[int] = []
    for sequence in sequences:
        block, offset = divmod(sequence.stop, block_size)
        if not offset:
            continue
        slot = sequence.block_table[block] * block_size
        if sequence.start <= block * block_size:
            parts.extend(range(slot + offset, slot + block_size))
        elif sequence.num_stored > sequence.stop:
            stop = min(sequence.num_stored - block * block_size, block_size)
            parts.extend(range(slot + offset, slot + stop))
    return np.array(parts, dtype=np.int64)


class StepHolder(Generic[_Step]):
    """One device's current step; written between forward passes, read by every layer in one.

    Attributes:
        beat: Called after every piece of a layer's attention that may take long.
    """

    def __init__(self) -> None:
        self._step: _Step | None = None
        self.beat: Callable[[], None] = _ignore

    @property
    def step(self) -> _Step:
        """The step that runs now."""
        assert self._step is not None, "the model ran before PagedAttention.begin_step"
        return self._step

    @step.setter
    def step(self, step: _Step) -> None:
        self._step = step


def _ignore() -> None:
    pass
