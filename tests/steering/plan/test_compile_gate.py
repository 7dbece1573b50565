"""Gates against a model: scores in the formulas of the papers, keys, and places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from steering.directions import Direction, DirectionKind
from steering.documents import Gate, Intervention, Measure, PositionContext
from steering.errors import (
    IncompatibleOperationError,
    InvalidFieldError,
    LayerOutOfRangeError,
    NotStoredThereError,
    SteeringError,
)
from steering.plan import PlannedGate, Steer, SteeringPlan, compile_plan
from steering.plan.compile_plan import compile_gate
from steering.sites import Site, SitePoint
from tests.steering.samples import make_direction, make_spec

SPEC = make_spec()
EDITED = [SitePoint(1, Site.RESID_POST), SitePoint(2, Site.RESID_POST)]


def plan_gate(
    kind: DirectionKind = DirectionKind.VECTOR, **fields: Any
) -> tuple[tuple[PlannedGate, ...], Direction]:
    direction = make_direction(kind, Site.RESID_POST, (1, 2), SPEC, 5)
    document = {"per": "request", "direction": direction.reference, "threshold": 0.5, **fields}
    return compile_gate(Gate.from_dict(document), direction, EDITED, SPEC), direction


def cast_similarity(hidden: np.ndarray, condition: np.ndarray) -> float:
    """As IBM's implementation computes it: a projector, tanh, then the cosine."""
    projector = np.outer(condition, condition) / np.dot(condition, condition)
    projected = np.tanh(projector @ hidden)
    return float(np.dot(hidden, projected) / (np.linalg.norm(hidden) * np.linalg.norm(projected)))


@pytest.mark.parametrize("measure", list(Measure))
def test_scores_are_those_of_the_formulas(measure: Measure) -> None:
    kind = DirectionKind.PROBE if measure in ("logit", "probability") else DirectionKind.VECTOR
    (gate,), direction = plan_gate(kind, measure=measure.value)
    tensors = {name: t.numpy().astype(np.float64) for name, t in direction.at(1).items()}
    c = tensors["weight"] if kind is DirectionKind.PROBE else tensors["vector"]
    hidden = np.random.default_rng(0).normal(size=16) * 3
    logit = hidden @ c + (tensors["bias"][0] if kind is DirectionKind.PROBE else 0)
    expected = {
        Measure.PROJECTION: hidden @ c / np.linalg.norm(c),
        Measure.COSINE: hidden @ c / np.linalg.norm(c) / np.linalg.norm(hidden),
        Measure.CONDITION: cast_similarity(hidden, c),
        Measure.LOGIT: logit,
        Measure.PROBABILITY: 1 / (1 + np.exp(-logit)),
    }[measure]
    assert gate.score(hidden) == pytest.approx(expected, rel=1e-6)


def test_cosines_of_nothing_are_zero_and_probabilities_do_not_overflow() -> None:
    for measure in ("cosine", "condition"):
        (gate,), _ = plan_gate(measure=measure)
        assert gate.score(np.zeros(16)) == 0.0
    (gate,), _ = plan_gate(DirectionKind.PROBE, measure="probability")
    with np.errstate(all="raise"):
        assert {gate.score(sign * 1e6 * gate.vector.numpy()) for sign in (1, -1)} == {0.0, 1.0}


def test_a_gate_is_closed_on_its_threshold() -> None:
    for opens, beyond in (("above", 0.6), ("below", 0.4)):
        (gate,), _ = plan_gate(opens=opens)
        assert gate.is_open(beyond)
        assert not gate.is_open(0.5)
        assert not gate.is_open(1 - beyond)


def test_a_plane_is_read_along_its_first_axis() -> None:
    (gate,), direction = plan_gate(DirectionKind.PLANE)
    first = direction.at(1)["basis"][0]
    torch.testing.assert_close(gate.vector, first / first.norm())


def test_one_gate_per_request_or_one_per_edit() -> None:
    assert [g.point for g in plan_gate()[0]] == [SitePoint(1, Site.RESID_POST)]
    assert [g.point for g in plan_gate(layer=2)[0]] == [SitePoint(2, Site.RESID_POST)]
    assert [g.point for g in plan_gate(per="token")[0]] == EDITED
    assert [g.point for g in plan_gate(per="token", layer=1)[0]] == EDITED[:1] * 2


def test_keys_tell_apart_all_that_decides() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"threshold": 0.25},
        {"opens": "below"},
        {"measure": "cosine"},
        {"layer": 2},
        {"token": "mean"},
        {"per": "token"},
        {"per": "token", "steepness": 1.0},
    ]
    assert len({plan_gate(**change)[0][0].key for change in changes}) == len(changes)
    assert plan_gate()[0][0].key == plan_gate()[0][0].key


@pytest.mark.parametrize(
    ("kind", "fields", "error", "param"),
    [
        ("vector", {"measure": "logit"}, IncompatibleOperationError, "direction"),
        ("basis", {}, IncompatibleOperationError, "direction"),
        ("vector", {"layer": 3}, LayerOutOfRangeError, "layer"),
        ("vector", {"layer": 0}, NotStoredThereError, "layer"),
        ("vector", {"site": "attn_out"}, NotStoredThereError, "site"),
        ("vector", {"per": "token", "layer": 2}, InvalidFieldError, "layer"),
    ],
)
def test_what_cannot_be_read_there_is_refused(
    kind: str, fields: dict[str, Any], error: type[SteeringError], param: str
) -> None:
    with pytest.raises(error) as caught:
        plan_gate(DirectionKind(kind), **fields)
    assert caught.value.param == param


def test_a_token_gate_reads_no_later_than_it_acts() -> None:
    vector = Direction("v", DirectionKind.VECTOR, Site.MLP_OUT, (1,), {"vector": torch.ones(16)})

    def compile_at(site: str, layer: int) -> None:
        document = {"per": "token", "direction": "v", "threshold": 0, "site": site, "layer": layer}
        compile_gate(Gate.from_dict(document), vector, [SitePoint(1, Site.MLP_OUT)], SPEC)

    for site, layer in (("mlp_out", 1), ("norm2", 1), ("resid_post", 0), ("resid_pre", 1)):
        compile_at(site, layer)
    for site, layer in (("resid_post", 1), ("resid_pre", 2), ("embed", 2)):
        with pytest.raises((InvalidFieldError, LayerOutOfRangeError)):
            compile_at(site, layer)


def gated_plan(per: str, **fields: Any) -> SteeringPlan:
    gate = {"per": per, "direction": "v", "threshold": 0.5}
    scope = {"tokens": ["last_prompt", "generated"]}
    document = {"operation": "add", "direction": "v", "scope": scope, "gate": gate, **fields}
    vector = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.ones(16)})
    return compile_plan(
        [Steer(Intervention.from_dict(document), vector, gate_direction=vector)], [], SPEC
    )


def test_gains_follow_what_was_decided() -> None:
    plan = gated_plan("request", strength=2.0)
    (latch,) = plan.latches
    for start, stop in ((2, 6), (4, 6)):
        undecided = plan.gains(start, stop, PositionContext(4))
        opened = plan.gains(start, stop, PositionContext(4, open_gates={latch.key}))
        assert not undecided.any()
        assert opened.any(axis=0).all()
    assert plan.block_digest(0, 16, PositionContext(4)) == b""
    ungated = gated_plan("request", strength=2.0, gate=None)
    opened_context = PositionContext(4, open_gates={latch.key})
    assert plan.block_digest(0, 16, opened_context) == ungated.block_digest(0, 16, opened_context)


def test_token_gates_are_part_of_what_is_computed() -> None:
    context = PositionContext(4)
    plans = [gated_plan("token"), gated_plan("token", gate=None)]
    assert len({plan.block_digest(0, 16, context) for plan in plans}) == 2
    assert len({plan.fingerprint for plan in [*plans, gated_plan("request")]}) == 3


def test_gates_begin_a_stage_and_nothing_joins_them() -> None:
    plan = gated_plan("token")
    lane = plan.interventions[0].edits[0].lane
    assert lane.gate_point == SitePoint(1, Site.RESID_POST)
    assert not lane.takes_shifts
