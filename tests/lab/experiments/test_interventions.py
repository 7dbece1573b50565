"""Pushes at write matrices: what each is made of."""

from __future__ import annotations

import pytest
import torch

from lab.experiments.interventions import (
    WRITE_SITES,
    amplified,
    injected,
    pushed,
    random_like,
    signed,
)
from steering.directions import Direction, DirectionKind
from steering.documents import Operation
from steering.model_spec import ModelSpec
from steering.plan import Steer, compile_plan
from steering.sites import Site, SitePoint

LAYERS = 2
SPEC = ModelSpec("tiny", "llama", "f", LAYERS, 8, 2, 4)
POINTS = [SitePoint(layer, site) for site in WRITE_SITES for layer in range(LAYERS)]


@pytest.fixture
def direction() -> Direction:
    vector = torch.arange(1.0, 9.0)
    return Direction("s", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": vector})


def moved(steers: tuple[Steer, ...], outputs: torch.Tensor) -> dict[SitePoint, torch.Tensor]:
    """What each point's edits add to `outputs` [d], by the formula of an edit."""
    found = {}
    for planned in compile_plan(steers, [], SPEC).interventions:
        for item in planned.edits:
            edit = item.edit
            change = torch.zeros(8) if edit.shift is None else edit.shift.clone()
            if edit.read is not None:
                assert edit.offset is not None
                assert edit.write is not None
                assert edit.response is not None
                change = change + (outputs @ edit.read.T - edit.offset) @ (
                    edit.write * edit.response.linear[:, None]
                )
            found[item.point] = planned.strength * change
    return found


def test_published_and_amplifying_edits_are_their_formulas(direction: Direction) -> None:
    y = torch.randn(8, generator=torch.Generator().manual_seed(0))
    s = direction.tensors["vector"] / direction.tensors["vector"].norm()
    layers = list(range(LAYERS))
    for change in moved(injected(direction, 3.0, layers), y).values():
        torch.testing.assert_close(change, 3.0 * y.mean() * s)
    for change in moved(amplified(direction, 0.5, layers), y).values():
        torch.testing.assert_close(change, 0.5 * (y @ s) * s)


def test_signs_are_each_matrix_s_own(direction: Direction) -> None:
    y = torch.ones(8)
    signs = dict(zip(POINTS, (1.0, -1.0, -1.0, -1.0), strict=True))
    found = moved(signed(direction, 2.0, signs), y)
    plain = moved(injected(direction, 2.0, list(range(LAYERS))), y)
    assert set(found) == set(plain) == set(POINTS)
    for point, sign in signs.items():
        torch.testing.assert_close(found[point], sign * plain[point])


def test_a_constant_push_has_the_lengths_asked_for(direction: Direction) -> None:
    lengths = dict(zip(POINTS, (0.5, -2.0, 0.0, 1.0), strict=True))
    found = moved(pushed(direction, lengths), torch.randn(8))
    s = direction.tensors["vector"] / direction.tensors["vector"].norm()
    assert set(found) == {point for point, length in lengths.items() if length}
    for point, change in found.items():
        torch.testing.assert_close(change, lengths[point] * s)


def test_a_random_direction_is_as_long_and_points_elsewhere(direction: Direction) -> None:
    drawn = [random_like(direction, seed).tensors["vector"] for seed in (0, 0, 1)]
    vector = direction.tensors["vector"]
    torch.testing.assert_close(drawn[0].norm(), vector.norm())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert abs(torch.cosine_similarity(drawn[0], vector, dim=0)) < 0.95


def test_operations_are_those_named(direction: Direction) -> None:
    assert {s.intervention.operation for s in injected(direction, 1.0, [0])} == {Operation.RANK_ONE}
    assert {s.intervention.operation for s in amplified(direction, 1.0, [0])} == {Operation.ABLATE}
