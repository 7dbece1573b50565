"""How a step's tokens are cut into blocks, so that each meets few rows it does not use.

The tokens of a prompt lie together and use the same rows, so a block of them gathers those rows
once and meets no others. Tokens that are decoded stand alone, a request's one token beside the
next one's: each meets all rows of the step, or gathers its own where these are many.

Costs are in units of what one row costs one token where nothing is gathered: `lab/bench/kernel.py`
prints them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "TokenBlocks", "cut_tokens", "price"]

BLOCK: Final = 32
"""Tokens in a block of a prompt."""

_PRICES: Final = {1: 30, BLOCK: 3}
"""Of a row and token, by tokens in the block that gathers it."""

_SECOND_PART: Final = 4_000
"""Of launching everything once more."""


@dataclass(frozen=True, slots=True)
class TokenBlocks:
    """Tokens [start, stop) in blocks of `size`, which divides their number."""

    start: int
    stop: int
    size: int


def price(size: int) -> int:
    """Of a row and token in blocks of `size` tokens that gather their rows."""
    return _PRICES[size]


def cut_tokens(acts: NDArray[np.bool_]) -> tuple[TokenBlocks, ...]:
    """Where single tokens end and blocks begin, at the least cost; one part or two.

    acts [T, C]: whether a column's rows act on a token.
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
    """Of tokens [0, stop) that meet all rows or gather their own, for each stop."""
    most = np.append(0, np.maximum.accumulate(acts.sum(axis=1)))[stops]
    in_any = np.append(0, np.logical_or.accumulate(acts, axis=0).sum(axis=1))[stops]
    cost: NDArray[np.int64] = stops * np.minimum(in_any, most * price(1))
    return cost


def _block_cost(acts: NDArray[np.bool_], num_blocks: int) -> NDArray[np.int64]:
    """Of the blocks from the i-th on, for each i up to their number."""
    in_block = acts.reshape(num_blocks, BLOCK, -1).any(axis=1).sum(axis=1)
    most = np.maximum.accumulate(in_block[::-1])[::-1]
    tokens = BLOCK * np.arange(num_blocks, 0, -1)
    return np.append(tokens * most * price(BLOCK), 0)
