"""What all documents share: types without conversions, nulls, refusals, and their JSON schema."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from server.jobs.kinds.cliff import CliffJob
from server.jobs.kinds.cliff_probe import CliffProbeJob
from server.jobs.kinds.heads import HeadsJob
from server.jobs.kinds.sweep import SweepJob
from server.measure.fitting.request import FitJob
from server.registry.upload import DirectionDocument
from steering.documents import (
    AnyIntervention,
    Document,
    Flag,
    Integer,
    Intervention,
    Number,
    ProfileDocument,
    Seed,
    Text,
    Texts,
    read_at,
    read_numbers,
)
from steering.errors import InvalidFieldError, NonFiniteError, SteeringError


class Part(Document):
    noun: ClassVar[str] = "a part"
    names_place: ClassVar[bool] = True

    number: Number = 0.0


class Thing(Document):
    noun: ClassVar[str] = "a thing"
    prefix: ClassVar[str] = "x."

    number: Number = 0.0
    integer: Integer = 0
    flag: Flag = False
    text: Text = ""
    texts: Texts = ()
    seed: Seed = 0
    needed: Integer
    parts: tuple[Part, ...] = ()


def read(**given: Any) -> Thing:
    return Thing.from_dict({"needed": 1, **given})


def test_values_keep_their_types() -> None:
    assert read(number=3).number == 3.0
    assert isinstance(read(number=3).number, float)
    assert read(texts="a").texts == ("a",)
    assert read(texts=["a", ""]).texts == ("a", "")


@pytest.mark.parametrize("name", ["number", "integer", "flag", "text", "texts", "seed", "parts"])
def test_null_counts_as_absent(name: str) -> None:
    assert read(**{name: None}) == read()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("number", [True, "1", [1], 1j], "a number"),
        ("integer", [True, "1", 1.0, [1]], "an integer"),
        ("flag", [0, 1, "true"], "true or false"),
        ("text", [1, True, ["a"]], "a text"),
        ("seed", [-1, 2**63], "an integer from 0 to 2^63 - 1"),
    ],
)
def test_other_types_are_refused(name: str, values: list[Any], expected: str) -> None:
    for value in values:
        with pytest.raises(InvalidFieldError) as caught:
            read(**{name: value})
        assert str(caught.value).startswith(f"x.{name} is ")
        assert f"expected {expected}" in str(caught.value)
        assert caught.value.param == name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(NonFiniteError, match=r"x.number is not finite; expected a finite number"):
        read(number=value)
    with pytest.raises(NonFiniteError, match="v is not finite") as caught:
        read_numbers([1.0, value], "v")
    assert caught.value.param == "v"


@pytest.mark.parametrize("values", [[1], ["a", None], 1, True, {}, [["a"]]])
def test_items_of_lists_are_named_by_their_list(values: Any) -> None:
    with pytest.raises(InvalidFieldError, match=r"x.texts contains .* expected strings") as caught:
        read(texts=values)
    assert caught.value.param == "texts"


def test_unknown_members_are_named_with_the_known_ones_before_anything_else() -> None:
    with pytest.raises(
        InvalidFieldError, match=r"unknown field x.c of a thing; expected flag, "
    ) as caught:
        read(needed="x", c=2)
    assert caught.value.param == "c"
    with pytest.raises(InvalidFieldError) as long:
        read(**{"k" * 10**5: 1})
    assert len(str(long.value)) < 250
    assert len(long.value.param or "") < 100


@pytest.mark.parametrize("document", [{}, {"needed": None}])
def test_required_members(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidFieldError, match="a thing has no needed; it is required") as caught:
        Thing.from_dict(document)
    assert caught.value.param == "needed"


def test_members_within_lists_are_named_by_their_whole_place() -> None:
    with pytest.raises(InvalidFieldError, match=r"x\.parts\[1\]\.number is 'a'") as caught:
        read(parts=[{}, {"number": "a"}])
    assert caught.value.param == "parts[1].number"
    with pytest.raises(InvalidFieldError, match=r"unknown field x\.parts\[0\]\.b of a part"):
        read(parts=[{"b": 1}])
    with pytest.raises(InvalidFieldError, match=r"x\.parts\[0\] is 3; expected an object"):
        read(parts=[3])
    with pytest.raises(InvalidFieldError, match=r"^p\[2\]\.number is 'a'") as placed:
        read_at(TypeAdapter(Part), {"number": "a"}, "p[2]")
    assert placed.value.param == "p[2].number"


def test_the_constructor_checks_too() -> None:
    with pytest.raises(ValidationError, match=r"x\.number is 'a'; expected a number"):
        Thing(needed=1, number="a")  # type: ignore[arg-type]


REQUESTS: list[type[Document]] = [
    *(CliffJob, CliffProbeJob, DirectionDocument, FitJob, HeadsJob, ProfileDocument, SweepJob),
]


@pytest.mark.parametrize("model", REQUESTS)
def test_every_member_is_described(model: type[Document]) -> None:
    schema = model.model_json_schema()
    Draft202012Validator.check_schema(schema)
    for owner in (schema, *schema.get("$defs", {}).values()):
        for name, member in owner.get("properties", {}).items():
            assert "description" in member or "const" in member, (owner["title"], name)


VALID: list[dict[str, Any]] = [
    {"operation": "add", "direction": "a", "layers": 2},
    {"operation": "ablate", "direction": "a@1", "layers": [0, 3], "reference": "stored"},
    {"operation": "set", "direction": "a", "value": 1, "layers": {"from": 0.2, "to": 1}},
    {"operation": "clamp", "direction": "a", "minimum": 0, "scope": {"tokens": "prompt"}},
    {"operation": "add", "direction": "a", "scope": {"windows": [[0, 4]], "exclude": {}}},
    {"operation": "add", "direction": "a", "schedule": {"kind": "decay", "factor": 0.5}},
    {
        "operation": "add",
        "direction": "a",
        "gate": {"per": "token", "direction": "g", "threshold": 0, "steepness": 2},
    },
]
INVALID: list[dict[str, Any]] = [
    {"direction": "a"},
    {"operation": "add"},
    {"operation": "add", "direction": "a", "value": 1},
    {"operation": "set", "direction": "a"},
    {"operation": "add", "direction": "a", "layers": []},
    {"operation": "add", "direction": "a", "layers": "all"},
    {"operation": "add", "direction": "a", "site": "residual"},
    {"operation": "add", "direction": "A b"},
    {"operation": "add", "direction": "a", "scope": {"tokens": []}},
    {"operation": "add", "direction": "a", "schedule": {"kind": "decay", "factor": 2}},
    {"operation": "add", "direction": "a", "schedule": {"kind": "ramp", "tokens": 0}},
    {
        "operation": "add",
        "direction": "a",
        "gate": {"per": "request", "direction": "g", "threshold": 0, "steepness": 2},
    },
]
SCHEMA = Draft202012Validator(TypeAdapter(AnyIntervention).json_schema())


@pytest.mark.parametrize("document", VALID)
def test_the_schema_holds_what_is_read_and_what_is_written(document: dict[str, Any]) -> None:
    SCHEMA.validate(document)
    SCHEMA.validate(Intervention.from_dict(document).to_dict())


@pytest.mark.parametrize("document", INVALID)
def test_the_schema_refuses_what_is_refused(document: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(document)
    with pytest.raises(SteeringError):
        Intervention.from_dict(document)
