"""Sweeps over strengths: more strength, more behaviour; and what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file

from server.engine.async_engine import AsyncEngine
from server.engine.errors import EngineError
from server.jobs.kinds.sweep import SWEEP
from server.models import DEMO_DIR
from server.store.errors import StoreError
from steering.directions import Direction, DirectionKind
from steering.errors import NoEffectError, SteeringError
from steering.sites import Site

from .fit_context import MemoryContext, run_job, texts

ORDINARY = texts("ordinary", 12, split="test")
DIRECT = texts("restricted_direct", 8, split="test")
REFUSAL = DEMO_DIR / "directions" / "refusal.safetensors"


@pytest.fixture
def context(embedded: AsyncEngine) -> MemoryContext:
    tensors = load_file(REFUSAL)
    direction = Direction("refusal", DirectionKind.VECTOR, Site.RESID_POST, (4,), tensors)
    return MemoryContext(embedded, stored={"refusal": direction})


def body(**changes: Any) -> dict[str, Any]:
    return {
        "intervention": {"operation": "add", "direction": "refusal"},
        "strengths": [0.0, 0.5, 2.0],
        "behaviour_tokens": ["I"],
        "data": {"prompts": ORDINARY, "neutral": DIRECT},
    } | changes


async def test_more_strength_is_more_behaviour(context: MemoryContext) -> None:
    result = await run_job(SWEEP, body(), context)
    none, some, much = result["rows"]
    assert [row["strength"] for row in result["rows"]] == [0.0, 0.5, 2.0]
    assert none["log_odds"] == pytest.approx(result["base"]["log_odds"], abs=0.05)
    assert none["perplexity"] == pytest.approx(result["base"]["perplexity"], rel=0.01)
    assert none["kl"] < 1e-3
    assert none["log_odds"] < some["log_odds"] < much["log_odds"]
    assert some["kl"] < much["kl"]
    fractions = [fraction for fraction, _ in context.reports]
    assert fractions == sorted(fractions)


@pytest.mark.parametrize("scope", [{"tokens": "generated"}, {"windows": [[900, 950]]}], ids=str)
def test_what_reaches_no_first_token_is_refused(
    context: MemoryContext, scope: dict[str, Any]
) -> None:
    asked = {"operation": "add", "direction": "refusal", "scope": scope}
    with pytest.raises(NoEffectError) as caught:
        SWEEP.parse(body(intervention=asked), context.engine, context.directions)
    assert caught.value.param == "intervention.scope"


async def test_a_gate_decides_what_is_swept(context: MemoryContext) -> None:
    gate = {"per": "request", "direction": "refusal", "layer": 4}
    scope = {"tokens": ["last_prompt", "generated"]}
    found = []
    for threshold in (-1e4, 1e4):
        context.memory.clear()
        asked = {"operation": "add", "direction": "refusal", "scope": scope}
        asked["gate"] = gate | {"threshold": threshold}
        result = await run_job(SWEEP, body(intervention=asked, strengths=[2.0]), context)
        found.append(result["rows"][0]["log_odds"] - result["base"]["log_odds"])
    assert found[0] > 1.0
    assert found[1] == pytest.approx(0.0, abs=1e-3)


async def test_a_resumed_sweep_measures_no_strength_twice(context: MemoryContext) -> None:
    row = '{"strength": 2.0, "log_odds": 77.0, "kl": 0.0, "perplexity": 1.0}'
    context.memory["strength 2.0"] = row
    result = await run_job(SWEEP, body(strengths=[2.0, 2.0]), context)
    assert [found["log_odds"] for found in result["rows"]] == [77.0]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"intervention": None}, "intervention"),
        ({"intervention": "refusal"}, "intervention"),
        ({"intervention": {"operation": "push", "direction": "x"}}, "intervention.operation"),
        ({"strengths": []}, "strengths"),
        ({"strengths": ["much"]}, "strengths"),
        ({"strengths": [float("nan")]}, "strengths"),
        ({"strengths": list(range(100))}, "strengths"),
        ({"behaviour_tokens": None}, "behaviour_tokens"),
        ({"behaviour_tokens": ["I cannot"]}, "behaviour_tokens"),
        ({"data": {"prompts": ORDINARY}}, "data.neutral"),
        ({"data": {"prompts": [""], "neutral": DIRECT}}, "data.prompts[0]"),
        ({"data": {"prompts": ["a " * 5000], "neutral": DIRECT}}, "data.prompts[0]"),
        ({"data": {"texts": []}}, "data.texts"),
        ({"steps": 3}, "steps"),
        ({"intervention": {"operation": "add", "direction": "lost"}}, "intervention.direction"),
    ],
)
def test_what_is_wrong_is_named(embedded: AsyncEngine, changes: dict[str, Any], param: str) -> None:
    asked = {key: value for key, value in body(**changes).items() if value is not None}
    with pytest.raises((SteeringError, EngineError, StoreError)) as caught:
        SWEEP.parse(asked, embedded, MemoryContext(embedded).directions)
    error = caught.value
    assert isinstance(error, SteeringError | EngineError | StoreError)
    assert error.param == param


def test_steering_that_does_not_fit_is_refused_before_it_is_queued(
    context: MemoryContext,
) -> None:
    intervention = {"operation": "add", "direction": "refusal", "layers": [99]}
    with pytest.raises(SteeringError) as caught:
        SWEEP.parse(body(intervention=intervention), context.engine, context.directions)
    assert caught.value.param == "intervention.layers"
