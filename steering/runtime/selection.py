"""Which rows of a table act on which tokens, cut into blocks of tokens that share their rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .token_blocks import price

__all__ = ["Selection", "select"]

_MOST_ROWS: Final = 0.5
"""Share of a table's rows from which all of them are taken, which saves gathering them."""


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
    """

    gains: Tensor
    index: Tensor | None = None
    first: int = 0
    _kept: dict[Tensor, Tensor] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def acts(self) -> Tensor:
        """Where a gain is not zero, shaped as `gains`; shared by every point of a step."""
        return self.gains != 0

    @cached_property
    def rests(self) -> Tensor:
        """Where a gain is zero, likewise."""
        return self.gains == 0

    @property
    def blocks(self) -> tuple[int, int]:
        """B and b."""
        return self.gains.shape[0], self.gains.shape[1]

    def rows(self, table: Tensor) -> Tensor:
        """The blocks' rows of a table [R, ...]: [B, K, ...].

        Those of a selection that takes no more rows than the table has are gathered once and kept:
        while nothing changes, as in decoding, a selection serves step after step.
        """
        if self.index is None:
            return table[None]
        if self.index.numel() > len(table):
            return table[self.index]
        if table not in self._kept:
            self._kept[table] = table[self.index]
        return self._kept[table]

    def of_rows(self, values: Tensor) -> Tensor:
        """What stands beside each row, [R, ...], as the tokens see it: [B, 1, K, ...]."""
        return self.rows(values)[:, None]

    def to(self, device: torch.device) -> Selection:
        """The same on another device; does not wait for either."""
        index = None if self.index is None else self.index.to(device, non_blocking=True)
        return Selection(self.gains.to(device, non_blocking=True), index, self.first)

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
    if in_any.sum() <= in_block * price(size):
        if in_any.mean() >= _MOST_ROWS:
            return Selection(_tensor(gains[None], device), None, first)
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
    """Gains [B, b, R] of the rows each block uses, [B, R], in `most` places."""
    blocks, rows = np.nonzero(used)
    counts = np.bincount(blocks, minlength=len(used))
    places = np.arange(len(blocks)) - np.repeat(np.cumsum(counts) - counts, counts)
    index = np.zeros((len(used), most), dtype=np.int64)
    values = np.zeros((*gains.shape[:2], most), dtype=np.float32)
    index[blocks, places] = rows
    values[blocks, :, places] = gains[blocks, :, rows]
    return Selection(_tensor(values, device), _tensor(index, device), first)


def _tensor(array: NDArray[np.float32] | NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
