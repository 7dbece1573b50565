"""A trace is what captures see, at every token, under the steering asked for."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from server.auth.permissions import LOCAL_USER, Permission
from server.engine.async_engine import AsyncEngine
from server.engine.request import CaptureRequest, Pooling
from server.resolver.choice import NamedProfile, SteeringChoice
from server.store import SYSTEM, Store
from steering.sites import Site, SitePoint
from tests.server.api.conftest import connect, make_key

from .conftest import QUESTION, THINKING, analyse, closed_app

READOUTS = [{"direction": "push", "layer": layer} for layer in (0, 3)] + [{"direction": "probe"}]
POINTS = (
    SitePoint(0, Site.RESID_POST),
    SitePoint(3, Site.RESID_POST),
    SitePoint(5, Site.FINAL),
)


async def captured(
    model: AsyncEngine, found: dict[str, Any], store: Store, plan: Any = None, boundary: int = 0
) -> list[Any]:
    """The same scores, from whole activations read separately."""
    ids = tuple(token["id"] for token in found["tokens"])
    asked = CaptureRequest(
        "c",
        (ids,),
        POINTS,
        Pooling.ALL,
        plan=plan,
        steering_prompt_tokens=(boundary or len(ids),),
    )
    read = (await model.capture(asked)).sequences
    directions = store.directions
    vector = directions.load(directions.get("push")).at(2)["vector"]
    probe = directions.load(directions.get("probe")).at(5)
    unit = vector / vector.norm()
    rows = [read[point][0] @ unit for point in POINTS[:2]]
    rows.append(read[POINTS[2]][0] @ probe["weight"] + probe["bias"])
    return [row.numpy() for row in rows]


@pytest.mark.parametrize("max_tokens", [0, 6])
async def test_scores_are_those_of_captured_activations(
    api: httpx.AsyncClient, served: tuple[FastAPI, Store], model: AsyncEngine, max_tokens: int
) -> None:
    body = {"messages": QUESTION, "readouts": READOUTS, "max_tokens": max_tokens}
    found = await analyse(api, "trace", body)
    scopes = [token["scope"] for token in found["tokens"]]
    assert scopes.count("generated") == max_tokens
    for readout, row in zip(
        found["readouts"], await captured(model, found, served[1]), strict=True
    ):
        scores = readout["scores"]
        assert len(scores) == len(found["tokens"])
        if max_tokens:  # the last generated token never runs
            assert scores.pop() is None
            row = row[:-1]
        np.testing.assert_allclose(scores, row, atol=2e-4)


async def test_readouts_say_what_they_are(api: httpx.AsyncClient) -> None:
    found = await analyse(api, "trace", {"prompt": "Hello there", "readouts": READOUTS})
    assert found["object"] == "steering.analysis.trace"
    places = [(r["direction"], r["layer"], r["site"], r["bias"]) for r in found["readouts"]]
    assert places == [
        ("push@1", 0, "resid_post", 0.0),
        ("push@1", 3, "resid_post", 0.0),
        ("probe@1", 5, "final", 0.25),
    ]
    assert "".join(token["text"] for token in found["tokens"]) == "Hello there"
    assert all(token["regions"] == [] for token in found["tokens"])
    assert found["steering"]["applied"] == []


async def test_text_and_its_token_ids_are_traced_alike(api: httpx.AsyncClient) -> None:
    first = await analyse(api, "trace", {"prompt": "Hello there", "readouts": READOUTS})
    ids = [token["id"] for token in first["tokens"]]
    second = await analyse(api, "trace", {"prompt": ids, "readouts": READOUTS})
    assert first["readouts"] == second["readouts"]


async def test_a_steered_trace_reads_under_the_steering(
    api: httpx.AsyncClient, served: tuple[FastAPI, Store], model: AsyncEngine
) -> None:
    """Below the edit nothing changes; above it everything does, as a capture sees it."""
    app, store = served
    resolver = app.state.services.resolver
    body = {"messages": QUESTION, "readouts": READOUTS, "max_tokens": 4}
    plain = await analyse(api, "trace", {**body, "max_tokens": 0})
    found = await analyse(api, "trace", {**body, "steering": {"profile": "pushed"}})
    assert found["steering"]["profile"] == "pushed"
    assert found["steering"]["steered_tokens"]["prompt"] == len(plain["tokens"])
    assert "monitors" not in found["steering"]
    boundary = len(plain["tokens"])
    choice = SteeringChoice(named=(NamedProfile("pushed", "x"),))
    plan = (await resolver.resolve(choice, LOCAL_USER, SYSTEM)).plan
    rows = await captured(model, found, store, plan, boundary)
    for readout, row in zip(found["readouts"], rows, strict=True):
        np.testing.assert_allclose(readout["scores"][:-1], row[:-1], atol=2e-4)
    before, after = plain["readouts"][0]["scores"], found["readouts"][0]["scores"]
    np.testing.assert_allclose(before, after[:boundary], atol=1e-5)
    above = np.array(found["readouts"][1]["scores"][:boundary])
    assert np.abs(above - np.array(plain["readouts"][1]["scores"])).min() > 0.5


async def test_steering_the_last_token_alone_is_seen_there(api: httpx.AsyncClient) -> None:
    inline = {"operation": "add", "direction": "push", "scope": {"tokens": "last_prompt"}}
    body = {"messages": QUESTION, "readouts": [{"direction": "push", "layer": 4}]}
    plain = (await analyse(api, "trace", body))["readouts"][0]["scores"]
    steering = {"interventions": [inline]}
    found = await analyse(api, "trace", {**body, "steering": steering})
    scores = found["readouts"][0]["scores"]
    np.testing.assert_allclose(scores[:-1], plain[:-1], atol=1e-5)
    assert abs(scores[-1] - plain[-1]) > 0.1
    scored = await analyse(api, "score", {"messages": QUESTION, "steering": steering})
    assert scored["next_kl"] > 0
    assert max(token["kl"] for token in scored["tokens"]) < 1e-9


async def test_template_and_thought_are_told_apart(api: httpx.AsyncClient) -> None:
    body = {"messages": THINKING, "readouts": READOUTS[:1], "max_tokens": 60}
    found = await analyse(api, "trace", body)
    texts: dict[str, str] = {}
    for token in found["tokens"]:
        key = "+".join(token["regions"])
        texts[key] = texts.get(key, "") + token["text"]
    assert texts["system"] == THINKING[0]["content"]
    assert texts["user"] == QUESTION[0]["content"]
    assert texts["template"].startswith("<|im_start|>system\n")
    assert texts["assistant+thinking"].startswith("<think>")
    assert texts["assistant+thinking"].endswith("</think>")
    assert texts["assistant+answer"].strip()


async def test_an_open_assistant_turn_is_traced_as_it_was_written(api: httpx.AsyncClient) -> None:
    body = {"messages": THINKING, "readouts": READOUTS, "max_tokens": 12}
    written = await analyse(api, "trace", body)
    text = "".join(t["text"] for t in written["tokens"] if t["scope"] == "generated")
    said = {"role": "assistant", "content": text}
    again = await analyse(api, "trace", {"messages": [*THINKING, said], "readouts": READOUTS})
    assert [t["id"] for t in again["tokens"]] == [t["id"] for t in written["tokens"]]
    assert [t["regions"] for t in again["tokens"]] == [t["regions"] for t in written["tokens"]]
    for one, other in zip(written["readouts"], again["readouts"], strict=True):
        np.testing.assert_allclose(one["scores"][:-1], other["scores"][:-1], atol=2e-4)
        assert other["scores"][-1] is not None


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"readouts": []}, 400, "invalid_value", "readouts"),
        ({"readouts": None}, 400, "missing_required_parameter", "readouts"),
        ({"readouts": [{"direction": "none-such"}]}, 404, None, "readouts[0].direction"),
        (
            {"readouts": [{"direction": "push"}, {"direction": "push", "layer": 9}]},
            422,
            "layer_out_of_range",
            "readouts[1].layer",
        ),
        (
            {"readouts": [{"direction": "push", "site": "final", "layer": 1}]},
            422,
            None,
            "readouts[0].layer",
        ),
        ({"readouts": [{"direction": "push", "extra": 1}]}, 422, None, "readouts[0].extra"),
        ({"prompt": None}, 400, "invalid_value", "messages"),
        ({"messages": QUESTION}, 400, "invalid_value", "messages"),
        ({"prompt": ""}, 400, "invalid_value", "prompt"),
        ({"prompt": [10**6]}, 400, "invalid_value", "prompt"),
        ({"prompt": [5] * 2000}, 400, None, "prompt"),
        ({"max_tokens": -1}, 400, "invalid_value", "max_tokens"),
        ({"max_tokens": 2000}, 400, None, "max_tokens"),
        ({"steering": {"monitors": [{"direction": "push"}]}}, 400, None, "steering.monitors"),
        ({"steering": {"profile": "pushed", "compare": True}}, 400, None, "steering.compare"),
        ({"steering": {"profile": "absent"}}, 404, None, "steering.profile"),
        ({"extra": 1}, 400, "unknown_parameter", "extra"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
async def test_what_is_wrong_is_named_before_anything_runs(
    api: httpx.AsyncClient,
    model: AsyncEngine,
    fields: dict[str, Any],
    status: int,
    code: str | None,
    param: str,
) -> None:
    steps = model.stats().step_seconds
    body = {"prompt": "Hello there", "readouts": [{"direction": "push"}], **fields}
    error = await analyse(api, "trace", body, status)
    assert error["param"] == param
    assert code is None or error["code"] == code
    assert model.stats().step_seconds == steps


async def test_too_many_scores_are_refused(api: httpx.AsyncClient) -> None:
    readouts = [{"direction": "push"}] * 512
    body = {"prompt": [5] * 1000, "readouts": readouts, "max_tokens": 2**20}
    error = await analyse(api, "trace", body, 400)
    assert error["param"] == "readouts"


@pytest.mark.parametrize("what", ["trace", "score"])
async def test_it_takes_an_admin_and_what_the_direction_requires(
    served: tuple[FastAPI, Store], api: httpx.AsyncClient, what: str
) -> None:
    _, store = served
    body: dict[str, Any] = {"prompt": "Hello there"}
    if what == "trace":
        body["readouts"] = [{"direction": "wall"}]
    chat = make_key(store, Permission.CHAT, Permission.READ)
    async with connect(closed_app(served), chat) as http:
        await analyse(http, what, body, 403)
    if what == "trace":
        admin = make_key(store, Permission.ADMIN)
        async with connect(closed_app(served), admin) as http:
            error = await analyse(http, what, body, 403)
            assert error["param"] == "readouts"
        async with connect(closed_app(served), make_key(store, *Permission)) as http:
            await analyse(http, what, body)
        [used] = store.audit.list(None, 10, action="steering.restricted_use").items
        assert (used.subject, used.actor.key_id is None) == ("direction wall@1", False)
