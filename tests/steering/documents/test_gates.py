"""Gates as values: read, written, refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from steering.documents import (
    DirectionRef,
    Gate,
    GateToken,
    Intervention,
    Measure,
    Opens,
    RequestGate,
)
from steering.errors import SteeringError
from steering.sites import Site


def document(**fields: Any) -> dict[str, Any]:
    return {"per": "request", "direction": "harm@2", "threshold": 0.25, **fields}


GATES: list[dict[str, Any]] = [
    document(),
    document(token="mean", layer=3, site="resid_pre", measure="condition"),
    document(measure="probability", opens="below"),
    document(per="token", steepness=2.5, measure="cosine", threshold=-1.0),
]


@pytest.mark.parametrize("given", GATES)
def test_what_is_read_is_written(given: dict[str, Any]) -> None:
    gate = Gate.from_dict(given)
    written = json.loads(json.dumps(gate.to_dict()))
    assert Gate.from_dict(written) == gate
    assert given.items() <= written.items()


def test_defaults() -> None:
    gate = Gate.from_dict(document(layer=None, token=None, opens=None))
    assert gate == RequestGate(direction=DirectionRef("harm", 2), threshold=0.25)
    assert (gate.opens, gate.measure) == (Opens.ABOVE, Measure.PROJECTION)
    assert not gate.reads_whole_prompt
    mean = Gate.from_dict(document(token="mean"))
    assert isinstance(mean, RequestGate)
    assert mean.token is GateToken.MEAN
    assert Gate.from_dict(document(site="embed")).site is Site.EMBED


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"direction": "a", "threshold": 1}, "per", "has no per"),
    ({"per": "token", "threshold": 1}, "direction", "has no direction"),
    ({"per": "token", "direction": "a"}, "threshold", "has no threshold"),
    (document(per="answer"), "per", "expected one of request, token"),
    (document(direction="A b"), "direction", "expected a name"),
    (document(threshold="0"), "threshold", "expected a number"),
    (document(threshold=float("nan")), "threshold", "not finite"),
    (document(opens="larger"), "opens", "expected one of above, below"),
    (document(measure="dot"), "measure", "expected one of projection, cosine, condition"),
    (document(layer="3"), "layer", "expected an integer"),
    (document(layer=True), "layer", "expected an integer"),
    (document(site="residual"), "site", "expected one of embed"),
    (document(token="first"), "token", "expected one of last, mean"),
    (document(per="token", token="last"), "token", "only gates per request have it"),
    (document(steepness=1), "steepness", "only gates per token have it"),
    (document(per="token", steepness=0), "steepness", "expected a positive number"),
    (document(per="token", steepness=float("inf")), "steepness", "not finite"),
    (document(per="token", measure="condition"), "measure", "it is one for requests"),
    (document(measure="cosine", threshold=1.01), "threshold", "would never change"),
    (document(measure="probability", threshold=-0.1), "threshold", "would never change"),
    (document(comparator="larger"), "comparator", "unknown field comparator of a gate"),
]


@pytest.mark.parametrize(("bad", "param", "message"), BAD, ids=[f"{b[1]}: {b[2]}" for b in BAD])
def test_bad_gates_name_the_field(bad: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(SteeringError, match=message) as caught:
        Gate.from_dict(bad)
    assert caught.value.param == param
    with pytest.raises(SteeringError) as caught:
        Intervention.from_dict({"operation": "add", "direction": "a", "gate": bad})
    assert caught.value.param == f"gate.{param}"


@pytest.mark.parametrize(
    ("scope", "fits"),
    [
        ({"tokens": "last_prompt"}, True),
        ({"tokens": ["last_prompt", "generated"]}, True),
        ({"generated_windows": [[0, 4]], "prompt_indices": [-1]}, True),
        ({"tokens": "all", "exclude": {"tokens": "prompt"}}, True),
        ({"regions": "thinking", "exclude": {"tokens": "prompt"}}, True),
        ({}, False),
        ({"tokens": "prompt"}, False),
        ({"windows": [[100, 200]]}, False),
        ({"prompt_indices": [-1, -2]}, False),
        ({"prompt_indices": [0]}, False),
        ({"regions": "answer"}, False),
        ({"tokens": "all", "exclude": {"windows": [[0, 100]]}}, False),
    ],
)
def test_a_gate_per_request_acts_from_the_last_prompt_token_on(
    scope: dict[str, Any], fits: bool
) -> None:
    given = {"operation": "add", "direction": "a", "scope": scope}
    per_token = Intervention.from_dict({**given, "gate": document(per="token")})
    assert per_token.gate is not None
    if fits:
        assert Intervention.from_dict({**given, "gate": document()}).scope == per_token.scope
        return
    with pytest.raises(SteeringError, match="cannot change those before it") as caught:
        Intervention.from_dict({**given, "gate": document()})
    assert caught.value.param == "scope"
