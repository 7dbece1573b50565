"""The cache blocks that each request holds, and the prefixes that can be reused; no tensors."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import Final

from server.engine.request import Request

from .block_pool import BlockPool

_MAX_HEADROOM_TOKENS: Final = 512  # Of an answer's length, how much room is reserved ahead.
_HASH_BYTES: Final = 32


@dataclass(slots=True)
class _Sequence:
    """The manager's record of a request that holds blocks or has asked for them.

    Attributes:
        hashes: Hashes of its leading full blocks, as far as they were needed.
        num_committed: Number of leading blocks offered to the cache.
        reserved: Blocks [start, stop) reserved for its current run.
    """

    hashes: list[bytes] = field(default_factory=list)
    num_committed: int = 0
    reserved: tuple[int, int] = (0, 0)


class KVCacheManager:
    """Gives requests blocks for their keys and values, shared where prefix and steering agree.

    A block's hash covers all that decides its content:

        H(parent's hash, token ids, the request's cache salt, digest of the edits and gains there)

    Only full blocks are found again, and only once `commit` has confirmed that logits computed
    from them are finite. Blocks are taken in runs of adjacent ids, so that reading a sequence can
    be one view.
    """

    def __init__(
        self, num_blocks: int, block_size: int, *, enable_prefix_cache: bool = True
    ) -> None:
        self.block_size = block_size
        self.pool = BlockPool(num_blocks)
        self.num_queries = 0
        self.num_hits = 0
        self.enable_prefix_cache = enable_prefix_cache
        self._sequences: dict[str, _Sequence] = {}

    @property
    def num_tokens(self) -> int:
        """Number of tokens that all blocks hold."""
        return self.pool.num_blocks * self.block_size

    @property
    def usage_ratio(self) -> float:
        """Held blocks over all blocks, from 0 to 1; cached blocks nobody holds are not counted."""
        return 1.0 - self.pool.num_free / self.pool.num_blocks

    def num_blocks_for(self, num_tokens: int) -> int:
        """Number of blocks that hold so many tokens."""
        return -(-num_tokens // self.block_size)

    def admit(
        self, request: Request, *, reads_cache: bool = True, num_spare_blocks: int = 0
    ) -> bool:
        """Give a request blocks for all its known tokens, the cached ones without computing.

        Sets `block_table` and `num_computed_tokens`. At least the last token stays to be computed,
        because its logits are needed: where every block is cached, the last one is computed again
        into a private block.

        Args:
            request: Holds no blocks.
            reads_cache: False for requests that need activations or logits of prompt tokens.
            num_spare_blocks: Free blocks that must be left over.

        Returns:
            Whether there was room; if not, nothing changed.
        """
        assert not request.block_table, f"{request.request_id} holds blocks already"
        sequence = self._sequences.setdefault(request.request_id, _Sequence())
        matched = self._match(request, sequence) if reads_cache else []
        num_new = self.num_blocks_for(request.num_tokens) - len(matched)
        num_revived = sum(self.pool.ref_count(block) == 0 for block in matched)
        if num_new + num_revived + num_spare_blocks > self.pool.num_free:
            return False
        for block in matched:
            self.pool.hold(block)
        sequence.num_committed = len(matched)
        request.block_table = matched
        request.num_computed_tokens = len(matched) * self.block_size
        if reads_cache and self.enable_prefix_cache:
            self.num_queries += request.num_tokens
            self.num_hits += request.num_computed_tokens
        self._extend(request, sequence, num_new)
        return True

    def grow(self, request: Request, num_tokens: int) -> bool:
        """Give a request blocks for positions [0, num_tokens); False and no change without room."""
        num_new = self.num_blocks_for(num_tokens) - len(request.block_table)
        if num_new > self.pool.num_free:
            return False
        self._extend(request, self._sequences[request.request_id], num_new)
        return True

    def commit(self, request: Request, num_tokens: int) -> None:
        """Let others use the full blocks of [0, num_tokens): logits after them were finite."""
        if not self.enable_prefix_cache:
            return
        sequence = self._sequences[request.request_id]
        for index in range(sequence.num_committed, num_tokens // self.block_size):
            block_hash = self._block_hash(request, sequence, index)
            self.pool.cache(request.block_table[index], block_hash)
            sequence.num_committed = index + 1

    def free(self, request: Request, *, discard: bool = False) -> None:
        """Take back a request's blocks; none held is no error.

        Args:
            request: Its `block_table` and counts of tokens in it are reset.
            discard: Let nobody find its blocks again: its logits were not finite.
        """
        sequence = self._sequences.pop(request.request_id, None)
        if sequence is None:
            return
        self.pool.unreserve(*sequence.reserved)
        self.pool.release(request.block_table, discard=discard)
        request.block_table = []
        request.num_computed_tokens = request.num_stored_tokens = 0

    def clear(self) -> None:
        """Forget every cached prefix, for a cache whose tensors were rebuilt or reset."""
        self.pool.clear()

    def check_integrity(self, requests: list[Request]) -> None:
        """Check all counts, given every request that may hold blocks; for tests.

        Raises:
            AssertionError: They do not balance.
        """
        self.pool.check_integrity([request.block_table for request in requests])
        holders = {request.request_id for request in requests if request.block_table}
        assert holders <= set(self._sequences), "a request holds blocks it was not given"
        known = {request.request_id for request in requests}
        assert set(self._sequences) <= known, "an ended request is remembered"
        for request in requests:
            num_blocks = self.num_blocks_for(request.num_computed_tokens)
            assert len(request.block_table) >= num_blocks, "computed tokens without a block"

    def _match(self, request: Request, sequence: _Sequence) -> list[int]:
        matched: list[int] = []
        if not self.enable_prefix_cache:
            return matched
        # The last token is always computed, because its logits are wanted.
        for index in range((request.num_ready_tokens - 1) // self.block_size):
            block = self.pool.find(self._block_hash(request, sequence, index))
            if block is None:
                break
            matched.append(block)
        return matched

    def _block_hash(self, request: Request, sequence: _Sequence, index: int) -> bytes:
        hashes = sequence.hashes
        if index < len(hashes):
            return hashes[index]
        assert index == len(hashes), "blocks are hashed in order"
        start, stop = index * self.block_size, (index + 1) * self.block_size
        plan, salt = request.spec.plan, request.spec.cache_salt
        digest = plan.block_digest(start, stop, request.positions) if plan is not None else b""
        state = hashlib.blake2b(hashes[-1] if hashes else b"", digest_size=_HASH_BYTES)
        state.update(b"%d,%d," % (len(salt), len(digest)))  # lengths: no two inputs run together
        state.update(salt + digest)
        state.update(array("q", request.token_ids(start, stop)).tobytes())
        hashes.append(state.digest())
        return hashes[index]

    def _extend(self, request: Request, sequence: _Sequence, num_new: int) -> None:
        table, pool = request.block_table, self.pool
        stop = len(table) + num_new
        # Onto the neighbour while that is free; else a new run, with room reserved behind it for
        # the rest of the answer, so that the next calls find their neighbour free.
        while len(table) < stop:
            if table and pool.is_adjacent_free(table[-1] + 1, sequence.reserved[1]):
                table.append(pool.take(table[-1] + 1))
                continue
            pool.unreserve(*sequence.reserved)
            num_wanted = self._num_wanted(request, stop)
            start, length = pool.find_run(num_wanted, needed=stop - len(table))
            table.append(pool.take(start))
            sequence.reserved = (start + 1, start + length)
            pool.reserve(*sequence.reserved)

    def _num_wanted(self, request: Request, stop: int) -> int:
        num_left = request.max_tokens - len(request.output_token_ids)
        num_tokens = request.num_tokens + min(num_left, _MAX_HEADROOM_TOKENS)
        return max(self.num_blocks_for(num_tokens), stop) - len(request.block_table)
