"""The cache blocks that are free, held, or worth keeping for reuse; no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_Ranks = NDArray[np.int64]

# Ranks in ascending order: blank, time of last use, reserved (either of these plus 2^61), held.
# The clock counts releases, so it never comes near 2^61.
_BLANK: Final = 0
_RESERVED: Final = 1 << 61
_HELD: Final = 1 << 62

_CHUNK: Final = 4096  # Blocks searched at once: 32 KiB of ranks stay in the processor's cache.


class BlockPool:
    """Blocks 0 to num_blocks - 1 with reference counts, runs and a least-recently-used cache.

    Every block has a rank, and the allocator takes low ranks first: 0 for a blank block, then the
    time at which a cached block was last used, then the same beyond an offset where the block is
    reserved for the run of another sequence, last (never taken) a held block. A new run begins
    where the highest rank within it is lowest, so that with one block it is exactly least recently
    used. Reservations are wishes: they are kept while anything else is left, and never refuse.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._ranks = np.zeros(num_blocks, dtype=np.int64)
        self._ref_counts = [0] * num_blocks
        self._hashes: list[bytes | None] = [None] * num_blocks
        self._cached: dict[bytes, int] = {}
        self._num_held = 0
        self._clock = 0

    @property
    def num_free(self) -> int:
        """Number of blocks that nobody holds, cached ones included."""
        return self.num_blocks - self._num_held

    def ref_count(self, block: int) -> int:
        """Number of sequences that hold the block."""
        return self._ref_counts[block]

    def find(self, block_hash: bytes) -> int | None:
        """The block cached under a hash, or None."""
        return self._cached.get(block_hash)

    def hold(self, block: int) -> None:
        """Share a cached block: one more sequence holds it."""
        self._ref_counts[block] += 1
        if self._ref_counts[block] == 1:
            self._num_held += 1
            self._ranks[block] = _HELD

    def is_adjacent_free(self, block: int, reserved_stop: int) -> bool:
        """Whether a run may grow onto `block`: blank, or free within its own reservation."""
        if block >= self.num_blocks:
            return False
        rank = int(self._ranks[block])
        return rank == _BLANK or (block < reserved_stop and rank < _HELD)

    def take(self, block: int) -> int:
        """Hold a free block for new content; what was cached in it is forgotten."""
        assert self._ref_counts[block] == 0, f"block {block} is held"
        self._forget(block)
        self.hold(block)
        return block

    def find_run(self, length: int, *, needed: int = 1) -> tuple[int, int]:
        """Start and length of the best run of free blocks.

        Rather than give up the blocks reserved for others, a run may be shorter than `length`, but
        not than `needed`; shorter than that it is only where no such run is free at all.

        Cost: O(num_blocks log length) at worst, vectorised.

        Raises:
            AssertionError: No block is free.
        """
        assert self.num_free > 0, "no free block"
        length, needed = min(length, self.num_blocks), min(needed, length, self.num_blocks)
        while True:
            start, highest = self._best_window(length)
            if highest < (_RESERVED if length > needed else _HELD):
                return start, length
            # Halved rather than shortened by one: the search costs O(num_blocks) for each length.
            length = max(length // 2, needed if length > needed else 1)

    def _best_window(self, length: int) -> tuple[int, int]:
        """Start of the window whose highest rank is lowest, and that rank."""
        best_start, best = 0, _HELD
        # A chunk reaches length - 1 ranks into the next, so that no window is missed at a border.
        # A blank window ends the search: nothing ranks lower.
        for begin in range(0, self.num_blocks - length + 1, _CHUNK):
            highest = _sliding_max(self._ranks[begin : begin + _CHUNK + length - 1], length)
            start = int(highest.argmin())
            if highest[start] < best:
                best_start, best = begin + start, int(highest[start])
            if best == _BLANK:
                break
        return best_start, best

    def reserve(self, start: int, stop: int) -> None:
        """Keep free blocks of [start, stop) for the sequence whose run precedes them."""
        ranks = self._ranks[start:stop]
        ranks[ranks < _RESERVED] += _RESERVED

    def unreserve(self, start: int, stop: int) -> None:
        """Undo `reserve` for the blocks that were not taken."""
        ranks = self._ranks[start:stop]
        ranks[(ranks >= _RESERVED) & (ranks < _HELD)] -= _RESERVED

    def cache(self, block: int, block_hash: bytes) -> None:
        """Make a held block findable; of equal blocks the first stays the one found."""
        if block_hash not in self._cached and self._hashes[block] is None:
            self._cached[block_hash] = block
            self._hashes[block] = block_hash

    def release(self, blocks: Sequence[int], *, discard: bool = False) -> None:
        """Let go of a sequence's blocks; cached ones stay findable, the deepest are evicted first.

        With `discard` none of them is found again, also where another sequence holds it.
        """
        # From the end, so that the deepest block is the oldest: a prefix is of use without its
        # continuation, while a block whose prefix was evicted can never be found.
        for block in reversed(blocks):
            assert self._ref_counts[block] > 0, f"block {block} is not held"
            self._ref_counts[block] -= 1
            if discard:
                self._forget(block)
            if self._ref_counts[block] == 0:
                self._clock += 1
                self._num_held -= 1
                self._ranks[block] = _BLANK if self._hashes[block] is None else self._clock

    def clear(self) -> None:
        """Forget all cached content, for a cache whose tensors were rebuilt."""
        for block in list(self._cached.values()):
            self._forget(block)
            if self._ref_counts[block] == 0:
                self._ranks[block] = _BLANK

    def check_integrity(self, tables: Sequence[Sequence[int]]) -> None:
        """Check every count against the block tables of all sequences; for tests.

        Raises:
            AssertionError: They do not balance.
        """
        counts = [0] * self.num_blocks
        for table in tables:
            assert len(set(table)) == len(table), f"a block is twice in {table}"
            for block in table:
                counts[block] += 1
        assert counts == self._ref_counts, "reference counts differ from block tables"
        held = np.array(counts) > 0
        assert self._num_held == held.sum(), "the number of held blocks is wrong"
        assert (held == (self._ranks == _HELD)).all(), "ranks differ from reference counts"
        found = {block: block_hash for block_hash, block in self._cached.items()}
        assert found == {b: h for b, h in enumerate(self._hashes) if h is not None}
        blank = np.isin(self._ranks, (_BLANK, _RESERVED))
        uncached = np.array([h is None for h in self._hashes])
        assert (blank == (uncached & ~held)).all(), "a free block's rank hides what it caches"

    def _forget(self, block: int) -> None:
        block_hash = self._hashes[block]
        if block_hash is not None:
            del self._cached[block_hash]
            self._hashes[block] = None


def _sliding_max(ranks: _Ranks, length: int) -> _Ranks:
    """Maximum over each window of `length`, by doubling: [N] to [N - length + 1]."""
    width = 1
    while width * 2 <= length:
        ranks = np.maximum(ranks[:-width], ranks[width:])
        width *= 2
    rest = length - width
    return np.maximum(ranks[: len(ranks) - rest], ranks[rest:]) if rest else ranks
