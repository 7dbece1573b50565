"""What gates read of a prompt in chunks, and that they decide once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from server.engine.gate_latch import GateLatch
from server.engine.outputs import SteeredTokens
from server.engine.progress import PositionFlags
from steering.documents import DirectionRef, GateToken, Opens, RequestGate
from steering.plan import PlannedGate
from steering.sites import Site, SitePoint


def gate(token: GateToken, threshold: float, opens: Opens = Opens.ABOVE) -> PlannedGate:
    asked = RequestGate(direction=DirectionRef("v"), threshold=threshold, opens=opens, token=token)
    return PlannedGate(asked, "v@1", SitePoint(1, Site.RESID_POST), torch.tensor([1.0, 0.0]), 0.0)


def feed(latch: GateLatch, rows: np.ndarray, chunks: list[tuple[int, int]]) -> None:
    for start, stop in chunks:
        for planned, first, last in latch.reads(start, stop):
            latch.note(planned, first, last - first, rows[first:last].sum(axis=0))


@pytest.mark.parametrize(
    "chunks",
    [
        [(0, 6)],
        [(0, 2), (2, 5), (5, 6)],
        [(0, 1), (1, 3), (0, 4), (4, 6)],  # preempted within the prompt
        [(0, 5), (0, 5), (5, 9)],  # and a chunk that goes past its end
    ],
)
def test_chunks_add_up_to_the_prompt(chunks: list[tuple[int, int]]) -> None:
    rows = np.arange(18, dtype=np.float64).reshape(9, 2)
    mean, last = gate(GateToken.MEAN, 4.0), gate(GateToken.LAST, 4.0, Opens.BELOW)
    latch = GateLatch([mean, last], 6)
    assert not latch.is_decided
    feed(latch, rows, chunks)
    assert latch.decide()
    assert latch.scores == {mean.key: 5.0, last.key: 10.0}
    assert latch.open_gates == {mean.key}


def test_what_is_decided_is_not_read_again() -> None:
    latch = GateLatch([gate(GateToken.LAST, 0.0)], 2)
    known = latch.open_gates
    feed(latch, np.ones((2, 2)), [(0, 2)])
    assert not known
    assert latch.decide()
    assert len(known) == 1, "the object handed out before follows"
    assert list(latch.reads(0, 2)) == []


def test_a_score_that_is_not_finite_decides_nothing() -> None:
    latch = GateLatch([gate(GateToken.LAST, 0.0, Opens.BELOW)], 1)
    feed(latch, np.full((1, 2), np.nan), [(0, 1)])
    assert not latch.decide()
    assert not latch.is_decided
    assert not latch.open_gates


def test_a_prompt_read_in_part_is_a_fault_of_ours() -> None:
    latch = GateLatch([gate(GateToken.MEAN, 0.0)], 3)
    feed(latch, np.ones((3, 2)), [(1, 3)])
    with pytest.raises(AssertionError, match="has not read all of its prompt"):
        latch.decide()


def test_flags_of_positions_are_noted_again() -> None:
    flags = PositionFlags()
    flags.note(0, np.array([True, True, False]))
    flags.note(5, np.array([True]))
    flags.note(1, np.array([False]))
    assert flags.count(3) == SteeredTokens(prompt=1, generated=1)
