"""Interventions that no weight can stand for are refused, with the field that says so."""

from __future__ import annotations

from typing import Any

import pytest

from steering.directions import DirectionKind
from steering.documents import Intervention
from steering.plan import Steer, compile_plan
from steering.sites import Site, SitePoint
from steering.weights import NotFoldableError, check_foldable, edits_by_point
from tests.steering.samples import make_direction, make_spec

SPEC = make_spec(num_layers=2)


def asked(**fields: Any) -> Intervention:
    return Intervention.from_dict({"operation": "ablate", "direction": "refusal", **fields})


@pytest.mark.parametrize("site", [Site.ATTN_OUT, Site.MLP_OUT, Site.EMBED])
def test_every_token_of_a_written_output_may_be_edited(site: Site) -> None:
    check_foldable(asked(), site)
    check_foldable(asked(scope={"tokens": ["prompt", "all"]}), site)


@pytest.mark.parametrize(
    ("fields", "site", "param"),
    [
        ({}, Site.RESID_POST, "site"),
        ({}, Site.HEADS, "site"),
        ({"scope": {"tokens": "generated"}}, Site.MLP_OUT, "scope"),
        ({"scope": {"windows": [[0, 4]]}}, Site.MLP_OUT, "scope"),
        ({"scope": {"exclude": {"tokens": "last_prompt"}}}, Site.MLP_OUT, "scope"),
        ({"schedule": {"kind": "decay", "factor": 0.9}}, Site.MLP_OUT, "schedule"),
        ({"restore_norm": True}, Site.MLP_OUT, "restore_norm"),
        (
            {"gate": {"direction": "topic", "per": "token", "threshold": 0.5}},
            Site.MLP_OUT,
            "gate",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_a_weight_cannot_know_is_refused(
    fields: dict[str, Any], site: Site, param: str
) -> None:
    with pytest.raises(NotFoldableError, match=param) as caught:
        check_foldable(asked(**fields), site)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("kind", "document", "reason"),
    [
        (DirectionKind.VECTOR, {"operation": "add"}, "constant"),
        (DirectionKind.VECTOR, {"operation": "ablate", "reference": 1.0}, "constant"),
        (DirectionKind.VECTOR, {"operation": "set", "value": 1.0}, "constant"),
        (DirectionKind.VECTOR, {"operation": "clamp", "maximum": 1.0}, "not linear"),
        (DirectionKind.PLANE, {"operation": "rotate_to", "angle": 5.0}, "not linear"),
    ],
    ids=["add", "ablate-reference", "set", "clamp", "rotate_to"],
)
def test_what_a_weight_cannot_compute_is_refused(
    kind: DirectionKind, document: dict[str, Any], reason: str
) -> None:
    """Constant terms need a bias; the point at layer 0 has one, that at layer 1 has not."""
    direction = make_direction(kind, Site.MLP_OUT, (0, 1), SPEC, seed=1)
    steer = Steer(Intervention.from_dict({**document, "direction": direction.name}), direction)
    plan = compile_plan([steer], [], SPEC)
    with pytest.raises(NotFoldableError, match=reason) as caught:
        edits_by_point(plan, {SitePoint(0, Site.MLP_OUT)})
    assert caught.value.param == "interventions[0].operation"


def test_edits_of_a_point_keep_their_order() -> None:
    direction = make_direction(DirectionKind.VECTOR, Site.MLP_OUT, (0, 1), SPEC, seed=1)
    steers = [
        Steer(asked(strength=strength, layers=layers), direction)
        for strength, layers in ((0.5, [1]), (-2.0, [0, 1]))
    ]
    edits = edits_by_point(compile_plan(steers, [], SPEC), ())
    gains = {point.layer: [item.gain for item in found] for point, found in edits.items()}
    assert gains == {0: [-2.0], 1: [0.5, -2.0]}
