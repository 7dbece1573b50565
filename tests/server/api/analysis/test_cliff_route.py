"""Cliffs over HTTP: curves, their average, their ranking, and what is refused."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from server.auth.permissions import Permission
from server.store import Store
from tests.server.api.conftest import connect, make_key

from .conftest import THINKING, analyse, closed_app

THOUGHTS = (
    "The user asks about repairs. That is an ordinary question about repairs.",
    "The user wants help. I should decline.",
)
CHATS = [
    [*THINKING, {"role": "assistant", "content": f"<think>\n{thought}\n</think>\nTo repair it,"}]
    for thought in THOUGHTS
]
BODY: dict[str, Any] = {"conversations": CHATS, "probe": "probe"}


async def test_an_answer_has_curves_average_and_ranking(api: httpx.AsyncClient) -> None:
    found = await analyse(api, "cliff", {**BODY, "points": 20})
    assert found["object"] == "steering.analysis.cliff"
    assert found["probe"] == {"direction": "probe@1", "layer": 5, "site": "final"}
    rows = found["conversations"]
    for row in rows:
        assert len(row["curve"]) == row["num_tokens"]
        start, stop = row["thought"]
        assert row["plateau"] == pytest.approx(np.mean(row["curve"][start : stop - 3]))
        assert row["final"] == row["curve"][-1]
    average = found["average"]
    assert average["num_conversations"] == 2
    assert average["longest"] == max(row["num_tokens"] for row in rows)
    assert len(average["curve"]) == 20
    assert average["curve"][-1] == pytest.approx(np.mean([row["final"] for row in rows]))
    assert average["cliff"] == pytest.approx(np.mean([row["cliff"] for row in rows]))
    order = sorted(range(2), key=lambda index: -rows[index]["cliff"])
    assert found["ranking"]["cliff"] == order
    assert found["ranking"]["final"] == sorted(range(2), key=lambda i: rows[i]["final"])


async def test_a_curve_is_a_trace_of_the_same_tokens(api: httpx.AsyncClient) -> None:
    found = await analyse(api, "cliff", BODY)
    cut = [{**turn} for turn in CHATS[0]]
    cut[-1]["content"] = cut[-1]["content"].removesuffix("To repair it,")
    traced = await analyse(api, "trace", {"messages": cut, "readouts": [{"direction": "probe"}]})
    logits = np.array(traced["readouts"][0]["scores"])
    curve = found["conversations"][0]["curve"]
    np.testing.assert_allclose(curve, 1 / (1 + np.exp(-logits)), atol=1e-5)


async def test_the_thought_counts_as_generated(api: httpx.AsyncClient) -> None:
    """Steering of generated tokens leaves the scores before the thought as they were."""
    push = {"operation": "add", "direction": "push", "strength": 1.5}
    steering = {"interventions": [{**push, "scope": {"tokens": ["generated"]}}]}
    plain, steered = [
        (await analyse(api, "cliff", {**BODY, **extra}))["conversations"][0]
        for extra in ({}, {"steering": steering})
    ]
    start = plain["thought"][0] - 1  # the marker that opens the thought is the assistant's
    np.testing.assert_allclose(steered["curve"][:start], plain["curve"][:start], atol=1e-4)
    assert abs(steered["final"] - plain["final"]) > 1e-3
    error = await analyse(api, "cliff", {**BODY, "steering": {**steering, "prompt_tokens": 3}}, 422)
    assert error["param"] == "steering.prompt_tokens"


async def test_steering_acts_while_curves_are_read(api: httpx.AsyncClient) -> None:
    """On the assistant's own tokens alone, where only those are in scope."""
    plain = await analyse(api, "cliff", BODY)
    push = {"operation": "add", "direction": "push", "strength": 2.0}
    inline = {"interventions": [{**push, "scope": {"regions": "thinking"}}]}
    steered = await analyse(api, "cliff", {**BODY, "steering": inline})
    for before, after in zip(plain["conversations"], steered["conversations"], strict=True):
        start = before["thought"][0] - 1  # the marker is part of the thought
        gap = np.abs(np.array(before["curve"]) - np.array(after["curve"]))
        assert gap[:start].max() < 1e-5
        assert gap[start:].min() > 1e-4


async def test_curves_can_be_left_out(api: httpx.AsyncClient) -> None:
    found = await analyse(api, "cliff", {**BODY, "curves": False})
    assert all("curve" not in row for row in found["conversations"])


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"probe": "absent"}, 404, "probe"),
        ({"probe": "push"}, 422, "probe"),
        ({"probe": {"direction": "probe", "layer": 1}}, 422, "probe.layer"),
        ({"probe": None}, 422, "probe"),
        ({"conversations": [THINKING]}, 422, "conversations[0]"),
        ({"conversations": CHATS * 129}, 422, "conversations"),
        ({"trim": 1.5}, 422, "trim"),
        ({"steering": 3}, 400, "steering"),
        ({"steering": {"profile": "absent"}}, 404, "steering.profile"),
        ({"steering": {"interventions": [{"operation": "add"}]}}, 422, None),
        ({"unknown": 1}, 422, "unknown"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
async def test_what_is_wrong_is_named(
    api: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str | None
) -> None:
    error = await analyse(api, "cliff", {**BODY, **fields}, status)
    assert param is None or error["param"] == param


@pytest.mark.parametrize(("what", "body"), [("cliff", BODY), ("heads", {"prompts": CHATS})])
async def test_it_takes_an_admin(
    served: tuple[FastAPI, Store], api: httpx.AsyncClient, what: str, body: dict[str, Any]
) -> None:
    key = make_key(served[1], Permission.CHAT, Permission.READ, Permission.INLINE)
    async with connect(closed_app(served), key) as http:
        await analyse(http, what, {"probe": "probe", **body}, 403)
