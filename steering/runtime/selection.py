"""How a step's tokens reach the rows that act on them: cut into blocks that share their rows.

The tokens of a prompt lie together and use the same rows, so a block of them gathers those rows
once and meets no others. Tokens that are decoded stand alone, a request's one token beside the
next one's: each meets all rows of the step, or gathers its own where these are many. A worked
example is in docs/architecture.md, "The runtime: lanes, rows and blocks".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK: Final = 32
"""Tokens in a block of a prompt."""

# The unit of cost is one row for one token where nothing is gathered: d multiplications and
# additions inside one large product. A row gathered for one token is copied and then used once, by
# a product too thin for the processor; one gathered for 32 tokens is copied for all of them
# together. `python -m lab.bench.kernel` prints these ratios.
PRICES: Final = {1: 30, BLOCK: 3}
"""Cost of a gathered row and token, by tokens in the block that gathers it."""

_SECOND_PART: Final = 4_000
"""Cost of launching every operation of the step once more, for a second part."""

_MOST_ROWS: Final = 0.5
"""Share of a table's rows from which all of them are taken, which saves gathering them."""


@dataclass(frozen=True, slots=True)
class TokenBlocks:
    """Tokens [start, stop) in blocks of `size`, which divides their number."""

    start: int
    stop: int
    size: int


def cut_tokens(acts: NDArray[np.bool_]) -> tuple[TokenBlocks, ...]:
    """Where single tokens end and blocks begin, at the least cost; one part or two.

    The scheduler puts decoding requests before prompts, so one cut separates them. Every cut that
    leaves a multiple of `BLOCK` behind it is priced, all of them at once.

    Args:
        acts: [T, C], whether a column's rows act on a token.
    """
    num_tokens = len(acts)
    num_blocks = num_tokens // BLOCK
    loose = num_tokens - num_blocks * BLOCK
    if num_blocks < 2:
        return (TokenBlocks(0, num_tokens, 1),)
    starts = loose + BLOCK * np.arange(num_blocks + 1)  # of the blocks
    cost = _single_cost(acts, starts) + _block_cost(acts[loose:], num_blocks)
    cost[(starts > 0) & (starts < num_tokens)] += _SECOND_PART
    start = int(starts[np.argmin(cost)])
    parts = (TokenBlocks(0, start, 1), TokenBlocks(start, num_tokens, BLOCK))
    return tuple(part for part in parts if part.start < part.stop)


def _single_cost(acts: NDArray[np.bool_], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cost of tokens [0, stop) that meet all rows in use or gather their own, for each stop."""
    most = np.append(0, np.maximum.accumulate(acts.sum(axis=1)))[stops]
    in_any = np.append(0, np.logical_or.accumulate(acts, axis=0).sum(axis=1))[stops]
    cost: NDArray[np.int64] = stops * np.minimum(in_any, most * PRICES[1])
    return cost


def _block_cost(acts: NDArray[np.bool_], num_blocks: int) -> NDArray[np.int64]:
    """Cost of the blocks from the i-th on, for each i up to their number.

    Every block is padded to the rows of the fullest, as one product over all of them asks.
    """
    in_block = acts.reshape(num_blocks, BLOCK, -1).any(axis=1).sum(axis=1)
    most = np.maximum.accumulate(in_block[::-1])[::-1]
    tokens = BLOCK * np.arange(num_blocks, 0, -1)
    return np.append(tokens * most * PRICES[BLOCK], 0)


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows and gains of every token: B blocks of b tokens, each with K rows, B b = T.

    One block of all tokens is the *dense* case, in which every token meets every row; blocks of
    one token are the *sparse* case.

    Attributes:
        gains: [B, b, K] float32, zero where a row does not act.
        index: [B, K] int64 row numbers, arbitrary where the gains are zero; None where B is 1 and
            the rows are those of the table, in order.
        first: Which of the step's edited tokens is the first here.
        is_fixed: Whether the gains are final, as no gate decides them.
        is_full: Whether it is of one token whose gains are final and other than zero.
    """

    gains: Tensor
    index: Tensor | None = None
    first: int = 0
    is_fixed: bool = False
    is_full: bool = False
    _kept: dict[Tensor, Tensor] = field(default_factory=dict, init=False, repr=False)
    _kept_scaled: dict[Tensor, Tensor] = field(default_factory=dict, init=False, repr=False)
    _kept_sums: dict[Tensor, Tensor] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def acts(self) -> Tensor:
        """Where a gain is not zero, shaped as `gains`; shared by every point of a step."""
        return self.gains != 0

    @cached_property
    def idle(self) -> Tensor:
        """Where a gain is zero, shaped as `gains`; shared by every point of a step."""
        return self.gains == 0

    @property
    def blocks(self) -> tuple[int, int]:
        """The number of blocks B, and of tokens in each, b."""
        return self.gains.shape[0], self.gains.shape[1]

    def rows(self, table: Tensor) -> Tensor:
        """The blocks' rows of a table [R, ...]: [B, K, ...].

        Those of a selection that takes no more rows than the table has are gathered once and kept:
        while nothing changes, as in decoding, a selection serves step after step. A larger
        selection is gathered anew each time, so that what is kept never exceeds the tables.
        """
        if self.index is None:
            return table.unsqueeze(0)
        if self.index.numel() > len(table):
            return table[self.index]
        if table not in self._kept:  # tensors hash by identity, and tables are never written to
            self._kept[table] = table[self.index]
        return self._kept[table]

    def scaled_rows(self, table: Tensor) -> Tensor | None:
        """The rows times their gains, [1, K, d], kept as `rows` are; None unless it `is_full`."""
        if not self.is_full:
            return None
        if table not in self._kept_scaled:
            self._kept_scaled[table] = self.gains.mT * self.rows(table)
        return self._kept_scaled[table]

    def sums(self, table: Tensor) -> Tensor | None:
        """Gains times rows summed, [1, d], for one token whose gains are final; else None."""
        if not self.is_fixed or self.blocks != (1, 1):
            return None
        if table not in self._kept_sums:
            self._kept_sums[table] = (self.gains @ self.rows(table))[0]
        return self._kept_sums[table]

    def of_rows(self, values: Tensor) -> Tensor:
        """What stands beside each row, [R, ...], as the tokens see it: [B, 1, K, ...]."""
        return self.rows(values)[:, None]

    def to(self, device: torch.device) -> Selection:
        """The same on another device; does not wait for either."""
        index = None if self.index is None else self.index.to(device, non_blocking=True)
        gains = self.gains.to(device, non_blocking=True)
        return Selection(gains, index, self.first, self.is_fixed, self.is_full)

    def with_gains(self, gains: Tensor) -> Selection:
        """The same rows with other gains."""
        return Selection(gains, self.index, self.first)

    def paired(self) -> Selection:
        """The same selection of a table in which every row became two neighbouring rows."""
        gains = self.gains.repeat_interleave(2, dim=2)
        if self.index is None:
            return self.with_gains(gains)
        pairs = torch.stack((2 * self.index, 2 * self.index + 1), dim=2)
        return Selection(gains, pairs.flatten(1), self.first)


def select(
    gains: NDArray[np.float32], size: int, device: torch.device, first: int = 0
) -> Selection:
    """The cheaper way to reach the rows that act: in blocks of `size` tokens, or all at once.

    Args:
        gains: [T, R] of a table's rows.
        size: Tokens in a block; divides T.
        device: Where the selection goes.
        first: Which of the step's edited tokens is the first of these.
    """
    num_tokens, num_rows = gains.shape
    used = (gains != 0).reshape(-1, size, num_rows).any(axis=1)
    in_any = used.any(axis=0)
    in_block = max(int(used.sum(axis=1).max(initial=0)), 1)
    if in_any.sum() <= in_block * PRICES[size]:
        if in_any.mean() >= _MOST_ROWS:
            is_full = num_tokens == 1 and bool((gains != 0).all())
            return Selection(_tensor(gains[None], device), None, first, True, is_full)
        size, used = num_tokens, in_any[None]
        in_block = max(int(in_any.sum()), 1)
    return _gathered(gains.reshape(-1, size, num_rows), used, in_block, device, first)


def _gathered(
    gains: NDArray[np.float32],
    used: NDArray[np.bool_],
    most: int,
    device: torch.device,
    first: int,
) -> Selection:
    index, values = gather_places(gains, used, most)
    is_full = values.shape[:2] == (1, 1) and bool((values != 0).all())
    return Selection(_tensor(values, device), _tensor(index, device), first, True, is_full)


def gather_places(
    gains: NDArray[np.float32], used: NDArray[np.bool_], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Row numbers [B, most] and gains [B, b, most] of the rows that each block uses, [B, R].

    A block's rows take its first places, in order; the places left over keep row 0 at gain 0.

    Args:
        gains: [B, b, R].
        used: [B, R], whether a block uses a row; at most `most` of each block.
        most: Number of places.
    """
    blocks, rows = np.nonzero(used)
    counts = np.bincount(blocks, minlength=len(used))
    places = np.arange(len(blocks)) - np.repeat(np.cumsum(counts) - counts, counts)
    index = np.zeros((len(used), most), dtype=np.int64)
    values = np.zeros((*gains.shape[:2], most), dtype=np.float32)
    index[blocks, places] = rows
    values[blocks, :, places] = gains[blocks, :, rows]
    return index, values


def _tensor(array: NDArray[np.float32] | NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
