from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from steering.documents import (
    CONSTANT,
    EVERYWHERE,
    STORED,
    Add,
    DirectionRef,
    Intervention,
    LayerRange,
    Operation,
    Rotate,
    Schedule,
    SetProjection,
    StrengthUnit,
)
from steering.errors import InvalidFieldError, SteeringError
from steering.sites import Site

OWN_FIELDS: dict[str, list[dict[str, Any]]] = {
    "add": [{}],
    "ablate": [{}, {"reference": 1.5}, {"reference": "stored"}],
    "set": [{"value": -2.0}],
    "clamp": [{"minimum": -1.0}, {"maximum": 2.0}, {"minimum": -1.0, "maximum": -1.0}],
    "transport": [{}, {"mean_strength": 0.5, "shape_strength": 0.0}],
    "diagonal": [{}],
    "rotate": [{"angle": 30.0}],
    "rotate_to": [{"angle": 400.0}],
    "scale_heads": [{}],
    "rank_one": [{}],
}
CASES = [(operation, own) for operation, fields in OWN_FIELDS.items() for own in fields]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"layers": [3, 1], "site": "mlp_out", "strength": -0.5, "restore_norm": True},
    {"layers": {"from": 0.25, "to": 0.75}, "scope": {"tokens": "last_prompt"}},
    {"layers": "stored", "schedule": {"kind": "decay", "factor": 0.9}, "restore_norm": False},
]


def document(operation: Any = "add", **fields: Any) -> dict[str, Any]:
    return {"operation": operation, "direction": "refusal@2", **fields}


def test_every_operation_has_a_case() -> None:
    assert set(OWN_FIELDS) == {operation.value for operation in Operation}


@pytest.mark.parametrize(("operation", "own"), CASES)
@pytest.mark.parametrize("options", OPTIONS)
def test_documents_round_trip_through_json(
    operation: str, own: dict[str, Any], options: dict[str, Any]
) -> None:
    intervention = Intervention.from_dict(document(operation, **own, **options))
    written = intervention.to_dict()
    assert Intervention.from_dict(json.loads(json.dumps(written))) == intervention
    assert written == json.loads(json.dumps(written))
    for name, value in {**own, **options}.items():
        assert written[name] == value


def test_defaults() -> None:
    intervention = Intervention.from_dict(document())
    assert intervention == Add(direction=DirectionRef("refusal", 2))
    assert (intervention.layers, intervention.site, intervention.strength) == (STORED, None, 1.0)
    assert (intervention.unit, intervention.scope) == (StrengthUnit.RAW, EVERYWHERE)
    assert (intervention.schedule, intervention.restore_norm) == (CONSTANT, None)


def test_null_is_the_same_as_absent() -> None:
    names = ["layers", "site", "strength", "unit", "scope", "gate", "schedule", "restore_norm"]
    names += ["value", "minimum", "maximum", "reference", "angle", "mean_strength"]
    nulls: dict[str, Any] = dict.fromkeys(names)
    assert Intervention.from_dict(document(**nulls)) == Intervention.from_dict(document())


def test_fields_are_read_as_their_types() -> None:
    intervention = Intervention.from_dict(
        document(
            layers={"from": 0, "to": 1},
            site="resid_post",
            unit="resid",
            strength=2,
            schedule={"kind": "ramp", "tokens": 4},
        )
    )
    assert intervention.layers == LayerRange.between(0.0, 1.0)
    assert intervention.site is Site.RESID_POST
    assert intervention.unit is StrengthUnit.RESID
    assert isinstance(intervention.strength, float)
    assert intervention.schedule == Schedule.from_dict({"kind": "ramp", "tokens": 4})


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"operation": "add"}, "direction", "has no direction"),
    ({"direction": "a"}, "operation", "has no operation"),
    (document("subtract"), "operation", "'subtract'; expected one of add, ablate"),
    (document("ADD"), "operation", "expected one of"),
    (document(["add"]), "operation", "expected one of"),
    (document(factor=2), "factor", "unknown field factor of an intervention"),
    (document(layers="all"), "layers", "'all'"),
    (document(layers={"from": 0.5}), "layers.to", "has no to"),
    (document(site="residual"), "site", "'residual'; expected one of embed, resid_pre"),
    (document(site=3), "site", "3; expected one of"),
    (document(site=["embed"]), "site", "expected one of"),
    (document(strength="1"), "strength", "expected a number"),
    (document(strength=True), "strength", "True"),
    (document(strength=float("nan")), "strength", "not finite"),
    (document(strength=10**400), "strength", "not finite"),
    (document(unit="norm"), "unit", "'norm'; expected one of raw, resid"),
    (document("ablate", unit="resid"), "unit", "only 'add' has units"),
    (document(restore_norm=1), "restore_norm", "1; expected true or false"),
    (document(gate={"kind": "cast"}), "gate.kind", "unknown field kind of a gate"),
    (document(gate="cast"), "gate", "'cast'; expected an object"),
    (document(scope="all"), "scope", "'all'; expected an object"),
    (document(scope={"tokens": "x"}), "scope.tokens", "expected one of"),
    (document(scope={"exclude": {"windows": [[1, 0]]}}), "scope.exclude.windows", "start < stop"),
    (document(schedule=[]), "schedule", "expected an object"),
    (document(schedule={"kind": "decay", "factor": 2}), "schedule.factor", r"\(0, 1\]"),
    (document("set"), "value", "'set' has no value"),
    (document("set", value=float("inf")), "value", "not finite"),
    (document("rotate"), "angle", "'rotate' has no angle"),
    (document("rotate_to", angle="90"), "angle", "expected a number"),
    (document("clamp"), "minimum", "neither minimum nor maximum"),
    (document("clamp", minimum=2, maximum=1), "minimum", "above maximum 1"),
    (document(value=1.0), "value", "'add' does not use"),
    (document("set", value=1, angle=3), "angle", "'set' does not use"),
    (document(reference="stored"), "reference", "'add' does not use"),
    (document("ablate", reference="mean"), "reference", "expected a number"),
    (document("ablate", reference=True), "reference", "True"),
    (document("ablate", reference=float("nan")), "reference", "not finite"),
    (document("rank_one", mean_strength=1.0), "mean_strength", "'rank_one' does not use"),
]


@pytest.mark.parametrize(("bad", "param", "message"), BAD)
def test_bad_documents_name_the_field(bad: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(SteeringError, match=message) as caught:
        Intervention.from_dict(bad)
    assert caught.value.param == param
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("field", ["operation", "direction", "scope", "site", "restore_norm"])
def test_messages_stay_short_whatever_is_sent(field: str) -> None:
    with pytest.raises(SteeringError) as caught:
        Intervention.from_dict(document() | {field: "x" * 10**6})
    assert len(str(caught.value)) < 400


def test_values_are_checked_without_a_document_too() -> None:
    direction = DirectionRef("a")
    with pytest.raises(ValidationError, match="'set' has no value"):
        SetProjection(direction=direction)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="strength is not finite"):
        Add(direction=direction, strength=float("inf"))
    with pytest.raises(ValidationError, match="only 'add'"):
        Rotate(direction=direction, angle=1.0, unit=StrengthUnit.RESID)


NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@settings(deadline=None)
@given(NAMES, st.none() | st.integers(1, 10**9 - 1))
def test_references_round_trip(name: str, version: int | None) -> None:
    reference = DirectionRef(name, version)
    assert DirectionRef.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        *("", "A", "-a", ".a", "_a", "a" * 65, "a b", "a\n", "ä", "a/b", 3, None, ["a"]),
        *("a@", "a@0", "a@01", "a@-1", "a@1.0", "a@1@2", "a@1\n", "@1", "a@9999999999"),
    ],
)
def test_bad_references(text: Any) -> None:
    with pytest.raises(InvalidFieldError, match="expected a name") as caught:
        DirectionRef.parse(text, param="monitor")
    assert caught.value.param == "monitor"
