"""Cutting a step's tokens into blocks: what each kind of step comes to, and that it pays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from steering.runtime.token_blocks import BLOCK, TokenBlocks, cut_tokens, price


def acting(counts: Sequence[int], columns: Sequence[int | None]) -> NDArray[np.bool_]:
    """Requests of `counts` tokens, each under its column or none."""
    width = 1 + max((c for c in columns if c is not None), default=0)
    acts = np.zeros((sum(counts), width), dtype=np.bool_)
    owner = np.repeat(np.array([-1 if c is None else c for c in columns]), counts)
    acts[np.flatnonzero(owner >= 0), owner[owner >= 0]] = True
    return acts


def test_decoding_stays_one_part_of_single_tokens() -> None:
    assert cut_tokens(acting([1] * 200, range(200))) == (TokenBlocks(0, 200, 1),)


def test_one_profile_meets_no_other_rows_so_nothing_is_cut() -> None:
    assert cut_tokens(acting([500, 500], [0, 0])) == (TokenBlocks(0, 1000, 1),)


def test_prompts_of_many_profiles_are_cut_into_blocks() -> None:
    assert cut_tokens(acting([64] * 32, range(32))) == (TokenBlocks(0, 2048, BLOCK),)


def test_decoding_before_prompts_keeps_its_single_tokens() -> None:
    counts = [1] * 40 + [500] * 4
    first, second = cut_tokens(acting(counts, range(44)))
    assert (first.start, first.size, second.size) == (0, 1, BLOCK)
    assert first.stop == second.start >= 40
    assert first.stop < 40 + BLOCK  # no more than makes the rest divisible
    assert second.stop == 2040


@pytest.mark.parametrize("seed", range(20))
def test_parts_cover_the_tokens_and_cost_no_more_than_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = [int(c) for c in rng.choice([1, 1, 7, 60, 300], size=int(rng.integers(1, 30)))]
    columns = [int(c) if rng.random() < 0.8 else None for c in rng.integers(0, 40, len(counts))]
    acts = acting(counts, columns)
    parts = cut_tokens(acts)
    assert [p.start for p in parts] == [0, *(p.stop for p in parts[:-1])]
    assert parts[-1].stop == len(acts)
    assert all((p.stop - p.start) % p.size == 0 for p in parts)
    assert sum(_cost(acts, part) for part in parts) <= _cost(acts, TokenBlocks(0, len(acts), 1))


def _cost(acts: NDArray[np.bool_], part: TokenBlocks) -> int:
    own = acts[part.start : part.stop]
    in_block = own.reshape(-1, part.size, own.shape[1]).any(axis=1).sum(axis=1).max()
    return len(own) * min(int(own.any(axis=0).sum()), int(in_block) * price(part.size))
