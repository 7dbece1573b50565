"""Cutting a step's tokens into blocks pays; selections give every token its own rows and gains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from steering.runtime.selection import BLOCK, PRICES, Selection, TokenBlocks, cut_tokens, select

from .addressing import ADDRESSING, prefer

CPU = torch.device("cpu")


def seen(selection: Selection, num_rows: int) -> NDArray[np.float32]:
    """The gain matrix [T, R] that a selection stands for."""
    one_hot = selection.rows(torch.eye(num_rows))  # [B, K, R]
    return (selection.gains @ one_hot).flatten(0, 1).numpy()


@pytest.fixture(params=ADDRESSING, ids=list(ADDRESSING))
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    prefer(monkeypatch, request.param)
    return 4 if request.param == "blocks" else 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_stands_for_the_gains_it_was_made_from(size: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.normal(size=(24, 9)).astype(np.float32)
    gains[rng.random(gains.shape) >= share] = 0
    selection = select(gains, size, CPU)
    assert np.array_equal(seen(selection, 9), gains)
    assert np.array_equal(seen(selection.with_gains(2 * selection.gains), 9), 2 * gains)


def test_pairs_follow_their_rows(size: int) -> None:
    gains = np.zeros((8, 6), dtype=np.float32)
    gains[np.arange(8), np.arange(8) % 3] = np.arange(1, 9)
    paired = select(gains, size, CPU).paired()
    assert np.array_equal(seen(paired, 12), gains.repeat(2, axis=1))


def test_rows_that_nothing_uses_are_left_out(size: int) -> None:
    gains = np.zeros((8, 100), dtype=np.float32)
    gains[:, 70] = 1.5
    selection = select(gains, size, CPU)
    assert selection.rows(torch.zeros(100, 5)).shape[1] == 1
    assert np.array_equal(seen(selection, 100), gains)


def test_rows_are_kept_where_they_are_no_more_than_the_table() -> None:
    many, few = torch.randn(64, 5), torch.randn(40, 5)
    index = torch.arange(50)[:, None] % 40
    selection = Selection(torch.ones(50, 1, 1), index)
    assert selection.rows(many) is selection.rows(many)
    assert torch.equal(selection.rows(many), many[index])
    assert selection.rows(few) is not selection.rows(few)
    assert torch.equal(selection.rows(few), few[index])


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
    return len(own) * min(int(own.any(axis=0).sum()), int(in_block) * PRICES[part.size])
