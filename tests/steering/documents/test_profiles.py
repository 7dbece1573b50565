from __future__ import annotations

import json
from typing import Any

import pytest

from steering.documents import DEFAULT_MAX_STRENGTH, DirectionRef, Monitor, Profile, ProfileDocument
from steering.errors import SteeringError
from steering.sites import Site

ADD = {"operation": "add", "direction": "refusal@1", "layers": [2]}
FULL = {
    "description": "refuses more",
    "interventions": [ADD, {"operation": "set", "direction": "calm", "value": 0.5}],
    "monitors": [{"direction": "refusal@1", "layer": 2, "site": "resid_post"}, {"direction": "p"}],
    "requires": ["restricted"],
    "max_strength": 3,
}


def test_documents_round_trip_through_json() -> None:
    profile = ProfileDocument.from_dict(FULL).named("careful")
    written = profile.to_dict()
    assert ProfileDocument.from_dict(json.loads(json.dumps(written))).named("careful") == profile
    assert written["description"] == "refuses more"
    assert written["monitors"] == FULL["monitors"]
    assert [str(item.direction) for item in profile.interventions] == ["refusal@1", "calm"]
    assert (profile.requires, profile.max_strength) == (("restricted",), 3.0)


def test_order_is_part_of_a_profile() -> None:
    backward = FULL | {"interventions": FULL["interventions"][::-1]}  # type: ignore[index]
    assert ProfileDocument.from_dict(FULL).named("a") != ProfileDocument.from_dict(backward).named(
        "a"
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        dict.fromkeys(["description", "interventions", "monitors", "requires", "max_strength"]),
        {"interventions": [], "monitors": [], "requires": [], "description": ""},
    ],
)
def test_everything_is_optional_and_null_is_absent(document: dict[str, Any]) -> None:
    profile = ProfileDocument.from_dict(document).named("empty")
    assert profile == Profile(name="empty")
    assert profile.max_strength == DEFAULT_MAX_STRENGTH == 1.5


def test_one_scope_may_be_written_without_a_list() -> None:
    assert ProfileDocument.from_dict({"requires": "restricted"}).named("a").requires == (
        "restricted",
    )


@pytest.mark.parametrize(
    ("document", "param", "message"),
    [
        ({"intervention": []}, "intervention", "unknown field"),
        ({"name": "a"}, "name", "unknown field"),
        ({"interventions": {}}, "interventions", "expected a list"),
        ({"interventions": 0}, "interventions", "0; expected a list"),
        ({"interventions": ""}, "interventions", "expected a list"),
        ({"monitors": False}, "monitors", "False; expected a list"),
        ({"interventions": [ADD, "add"]}, "interventions[1]", "'add'; expected an object"),
        ({"interventions": [ADD, ADD | {"layers": []}]}, "interventions[1].layers", "empty"),
        (
            {"interventions": [ADD | {"scope": {"windows": [[1, 0]]}}]},
            "interventions[0].scope.windows",
            "start < stop",
        ),
        ({"interventions": [{}]}, "interventions[0].operation", "has no operation"),
        ({"monitors": [{}]}, "monitors[0].direction", "has no direction"),
        ({"monitors": [{"direction": "A"}]}, "monitors[0].direction", "'A'"),
        ({"monitors": [{"direction": "a", "layer": "2"}]}, "monitors[0].layer", "'2'"),
        ({"monitors": [{"direction": "a", "layer": True}]}, "monitors[0].layer", "True"),
        ({"monitors": [{"direction": "a", "site": "x"}]}, "monitors[0].site", "expected one of"),
        ({"monitors": [{"direction": "a", "layers": [1]}]}, "monitors[0].layers", "unknown"),
        ({"monitors": [None]}, "monitors[0]", "None; expected an object"),
        ({"requires": [1]}, "requires", "expected strings"),
        ({"description": 3}, "description", "3; expected a string"),
        ({"max_strength": 0}, "max_strength", "0; expected a positive number"),
        ({"max_strength": -1}, "max_strength", "-1"),
        ({"max_strength": "2"}, "max_strength", "expected a number"),
        ({"max_strength": float("inf")}, "max_strength", "not finite"),
    ],
)
def test_bad_documents_name_the_field(document: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(SteeringError, match=message) as caught:
        ProfileDocument.from_dict(document).named("a")
    assert caught.value.param == param


def test_monitors_keep_what_is_left_open_open() -> None:
    monitor = Monitor.from_dict({"direction": "a@3", "layer": None, "site": None})
    assert monitor == Monitor(direction=DirectionRef("a", 3))
    assert monitor.to_dict() == {"direction": "a@3"}
    full = Monitor.from_dict({"direction": "a", "layer": 0, "site": "final"})
    assert full == Monitor(direction=DirectionRef("a"), layer=0, site=Site.FINAL)
    assert Monitor.from_dict(full.to_dict()) == full
