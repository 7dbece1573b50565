"""The refusal cliff of the embedded model: thoughts that decline, answers that comply."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from server.engine.async_engine import AsyncEngine
from server.engine.request import CaptureRequest, Pooling
from server.jobs.kinds.cliff import CLIFF
from server.jobs.kinds.cliff_probe import CLIFF_PROBE
from server.measure.examples.example import Example
from server.measure.rollout import read_rollout
from server.store.errors import DirectionNotFoundError
from steering.directions import Direction, DirectionKind
from steering.errors import (
    FitError,
    IncompatibleOperationError,
    InvalidFieldError,
    LayerOutOfRangeError,
)
from steering.sites import Site, SitePoint
from tests.server.jobs.fit_context import MemoryContext, run_job

from .conftest import Thoughts

FINAL = SitePoint(5, Site.FINAL)


@pytest.fixture(scope="module")
def trained(model: AsyncEngine, probe_data: dict[str, Any]) -> tuple[MemoryContext, dict[str, Any]]:
    context = MemoryContext(model)
    request = {"name": "refusing", "data": probe_data}

    async def fit() -> dict[str, Any]:
        return dict(await run_job(CLIFF_PROBE, request, context))

    result = asyncio.run(fit())
    context.stored["refusing@1"] = context.saved[0]
    return context, result


def test_the_probe_reads_the_end_of_thinking_after_the_final_norm(
    trained: tuple[MemoryContext, dict[str, Any]], probe_data: dict[str, Any]
) -> None:
    context, result = trained
    made = context.stored["refusing@1"]
    assert result["direction"] == "refusing@1"
    assert (made.site, made.layers) == (Site.FINAL, (5,))
    assert made.model_fingerprint == context.spec.fingerprint
    receipt = result["receipt"]
    assert receipt["token"] == "end_of_thinking"
    assert receipt["validation_accuracy"] >= 0.9
    assert receipt["num_positive"] + receipt["num_validation"][0] == len(probe_data["positive"])


async def test_its_features_are_last_tokens_of_rollouts(
    trained: tuple[MemoryContext, dict[str, Any]], model: AsyncEngine, direct: Thoughts
) -> None:
    """It refuses where the thought of a direct question has ended."""
    tensors = trained[0].stored["refusing@1"].at(5)
    ids = read_rollout(model.tokenizer, Example.parse(direct.refused[0], "c"), 1024).token_ids
    read = await model.capture(CaptureRequest("c", (ids,), (FINAL,)))
    logit = read.pooled[FINAL][0] @ tensors["weight"] + tensors["bias"]
    assert float(logit) > 1.0


async def measured(
    context: MemoryContext, conversations: list[Any], **fields: Any
) -> dict[str, Any]:
    request = {"conversations": conversations, "probe": "refusing@1", **fields}
    return dict(await run_job(CLIFF, request, context))


async def test_curves_are_the_probe_over_every_token(
    trained: tuple[MemoryContext, dict[str, Any]], model: AsyncEngine, framed: Thoughts
) -> None:
    context = trained[0]
    chats = framed.complied[:2]
    found = await measured(context, chats, curves=True)
    tensors = context.stored["refusing@1"].at(5)
    for chat, row in zip(chats, found["conversations"], strict=True):
        rollout = read_rollout(model.tokenizer, Example.parse(chat, "c"), 1024)
        asked = CaptureRequest("c", (rollout.token_ids,), (FINAL,), Pooling.ALL)
        [hidden] = (await model.capture(asked)).sequences[FINAL]
        curve = expit((hidden @ tensors["weight"] + tensors["bias"]).double().numpy())
        np.testing.assert_allclose(row["curve"], curve, atol=1e-4)
        start, stop = row["thought"]
        assert row["plateau"] == pytest.approx(curve[start : stop - 3].mean(), abs=1e-4)
        assert row["final"] == pytest.approx(curve[-1], abs=1e-4)
        assert row["cliff"] == pytest.approx(row["plateau"] - row["final"])
        highest = curve[start : stop - 3].max()
        assert row["plateaus"] == pytest.approx({"mean": row["plateau"], "max": highest}, abs=1e-4)
    highest = await measured(context, chats, plateau="max")
    for row, other in zip(found["conversations"], highest["conversations"], strict=True):
        assert other["plateau"] == row["plateaus"]["max"]
        assert other["cliff"] == pytest.approx(other["plateau"] - other["final"])
    assert highest["average"]["plateau"] == pytest.approx(found["average"]["plateaus"]["max"])


async def test_complied_answers_fall_off_the_cliff(
    trained: tuple[MemoryContext, dict[str, Any]], framed: Thoughts
) -> None:
    """All these thoughts decline; where the answer complies, the score has fallen at their end."""
    chats = [*framed.complied, *framed.refused]
    assert len(framed.complied) >= 5
    assert all("should decline" in chat[-1]["content"] for chat in chats)
    found = await measured(trained[0], chats)
    rows = found["conversations"]
    complied, refused = rows[: len(framed.complied)], rows[len(framed.complied) :]
    mean = {
        name: {key: float(np.mean([row[key] for row in side])) for key in ("plateau", "cliff")}
        for name, side in (("complied", complied), ("refused", refused))
    }
    assert mean["complied"]["plateau"] > 0.6
    assert mean["complied"]["cliff"] > 0.3
    assert mean["complied"]["cliff"] > mean["refused"]["cliff"] + 0.2
    first = found["ranking"]["cliff"][: len(complied)]
    assert sum(index < len(complied) for index in first) > 0.5 * len(complied)
    assert len(found["average"]["curve"]) == 100
    assert "curve" not in rows[0]


async def test_an_emptied_thought_has_an_end_and_no_plateau(
    trained: tuple[MemoryContext, dict[str, Any]], framed: Thoughts
) -> None:
    found = await measured(trained[0], framed.complied[:2], thinking_portion=0.0)
    for row in found["conversations"]:
        assert row["plateau"] is None
        assert row["cliff"] is None
        assert row["plateaus"] == {"mean": None, "max": None}
        assert 0.0 < row["final"] < 1.0
    assert found["average"]["cliff"] is None
    assert found["ranking"] == {"cliff": [], "final": []}


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"points": 1}, InvalidFieldError, "points"),
        ({"trim": -1}, InvalidFieldError, "trim"),
        ({"padding": "ones"}, InvalidFieldError, "padding"),
        ({"curves": 1}, InvalidFieldError, "curves"),
        ({"thinking_portion": 2}, InvalidFieldError, "thinking_portion"),
        ({"probe": 5}, InvalidFieldError, "probe"),
        ({"probe": {"direction": "refusing", "layer": "x"}}, InvalidFieldError, "probe.layer"),
        ({"probe": "lost"}, DirectionNotFoundError, "probe"),
        ({"conversations": []}, InvalidFieldError, "conversations"),
        ({"conversations": ["a text"]}, InvalidFieldError, "conversations[0]"),
        ({"unknown": 1}, InvalidFieldError, "unknown"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_request_is_refused_before_it_is_queued(
    trained: tuple[MemoryContext, dict[str, Any]],
    framed: Thoughts,
    fields: dict[str, Any],
    error: type[Exception],
    param: str,
) -> None:
    context, request = trained[0], {"conversations": framed.complied[:1], "probe": "refusing@1"}
    with pytest.raises(error) as caught:
        CLIFF.parse(request | fields, context.engine, context.directions)
    assert caught.value.param == param  # type: ignore[attr-defined]


async def test_only_a_probe_has_cliffs(
    trained: tuple[MemoryContext, dict[str, Any]], framed: Thoughts
) -> None:
    context = MemoryContext(trained[0].engine)
    probe = trained[0].stored["refusing@1"]
    context.stored["refusing@1"] = Direction(
        "refusing",
        DirectionKind.VECTOR,
        Site.FINAL,
        (5,),
        {"vector": probe.at(5)["weight"]},
    )
    with pytest.raises(IncompatibleOperationError, match="expected a probe"):
        await measured(context, framed.complied[:1])


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"data": None}, InvalidFieldError),
        ({"layer": 9, "site": "resid_post"}, LayerOutOfRangeError),
        ({"layer": 2}, InvalidFieldError),
        ({"name": 7}, InvalidFieldError),
        ({"data": {"positive": [], "negative": []}}, FitError),
    ],
    ids=str,
)
def test_a_wrong_probe_is_refused_before_it_is_queued(
    model: AsyncEngine,
    probe_data: dict[str, Any],
    fields: dict[str, Any],
    error: type[Exception],
) -> None:
    request = {"name": "p", "data": probe_data, **fields}
    with pytest.raises((error, InvalidFieldError)):
        CLIFF_PROBE.parse(request, model, MemoryContext(model).directions)
