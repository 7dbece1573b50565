"""Selections give every token its own rows and gains, in whichever way the rows are reached."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from steering.runtime.selection import Selection, select

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
