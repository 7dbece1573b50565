"""Heads over HTTP: a ranking, and a draft profile of its first few per cent."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server.app import create_app
from server.auth.permissions import LOCAL_USER, Permission
from server.settings import Settings
from server.store import SYSTEM, Store
from tests.server.api.conftest import connect, make_key

from .conftest import QUESTION, WIDTH, analyse, closed_app
from .test_cliff_route import CHATS

PROMPTS = [QUESTION, "Hello there", "Tell me about the moon."]
BODY: dict[str, Any] = {"prompts": PROMPTS, "probe": "probe", "percent": 10}


async def test_an_answer_ranks_every_head(api: httpx.AsyncClient) -> None:
    found = await analyse(api, "heads", BODY)
    assert found["object"] == "steering.analysis.heads"
    assert found["probe"]["site"] == "final"
    assert (found["method"], found["is_folded"]) == ("attribution", True)
    assert len(found["heads"]) == 48
    assert set(found["heads"][0]) == {"layer", "head", "score", "direct", "folded"}
    assert set(found["probability"]) == {"base", "selected", "random"}
    assert "profile" not in found


async def test_one_call_saves_a_draft_that_steers(api: httpx.AsyncClient) -> None:
    """What the saved profile does is what was checked before it was saved."""
    found = await analyse(api, "heads", {**BODY, "profile": "cut", "prompts": PROMPTS[:1]})
    assert found["profile"] == "cut@1"
    assert found["direction"] == "cut@1"
    stored = (await api.get("/v1/steering/profiles/cut@1")).json()
    assert stored["status"] == "draft"
    [item] = stored["interventions"]
    assert (item["operation"], item["direction"]) == ("scale_heads", "cut@1")
    body = {
        "messages": QUESTION,
        "readouts": [{"direction": "probe"}],
        "steering": {"profile": "cut@1"},
    }
    traced = await analyse(api, "trace", body)
    probability = 1 / (1 + 2.718281828459045 ** -traced["readouts"][0]["scores"][-1])
    assert probability == pytest.approx(found["probability"]["selected"], abs=1e-4)
    direction = (await api.get("/v1/steering/directions/cut@1")).json()
    assert direction["kind"] == "heads"
    assert direction["provenance"]["heads"] == found["selected"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("heads", {**BODY, "prompts": PROMPTS[:1], "profile": "shared", "seed": 2**63 - 1}),
        ("cliff", {"conversations": CHATS, "probe": "probe", "curves": True}),
    ],
    ids=["heads", "cliff"],
)
async def test_a_job_answers_and_saves_what_the_route_does(
    served: tuple[FastAPI, Store], api: httpx.AsyncClient, kind: str, body: dict[str, Any]
) -> None:
    app, store = served
    jobs = create_app(Settings(), app.state.services.engine, store).state.services.jobs
    await jobs.start()
    try:
        queued = await jobs.create(kind, body, caller=LOCAL_USER, by=SYSTEM)
        async for _ in jobs.follow(queued.id):
            pass
        done = await jobs.get(queued.id)
    finally:
        await jobs.stop()
    assert done.error is None
    if "profile" in body:  # the job has saved it, before the route could
        stored = (await api.get(f"/v1/steering/profiles/{done.result['profile']}")).json()
        assert (stored["status"], stored["directions"]) == ("draft", [done.result["direction"]])
    answer = await analyse(api, kind, body)
    for name in ("id", "object", "created", "model", "system_fingerprint"):
        del answer[name]
    assert answer == done.result


async def test_the_causal_method_scales_each_head(api: httpx.AsyncClient) -> None:
    body = {**BODY, "prompts": PROMPTS[:1], "method": "causal", "check": False}
    found = await analyse(api, "heads", body)
    assert found["probability"] is None
    scores = [row["score"] for row in found["heads"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"probe": "push"}, 422, "probe"),
        ({"probe": "absent"}, 404, "probe"),
        ({"percent": 0}, 422, "percent"),
        ({"seed": -1}, 422, "seed"),
        ({"seed": 2**63}, 422, "seed"),
        ({"profile": "Bad Name"}, 422, "profile"),
        ({"requires": ["everything"]}, 422, "requires[0]"),
        ({"prompts": ["Hello"] * 200, "method": "causal"}, 422, "prompts"),
        ({"prompts": ["word " * 2000]}, 400, "prompts[0]"),
        ({"unknown": 1}, 422, "unknown"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
async def test_what_is_wrong_is_named(
    api: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str
) -> None:
    error = await analyse(api, "heads", {**BODY, **fields}, status)
    assert error["param"] == param


async def test_a_profile_that_weakens_refusals_can_be_locked(
    served: tuple[FastAPI, Store], api: httpx.AsyncClient
) -> None:
    """Only who holds `restricted` may ask for it, and only such keys may use what it saves."""
    app, store = closed_app(served), served[1]
    body = {**BODY, "prompts": PROMPTS[:1], "profile": "locked", "requires": ["restricted"]}
    async with connect(app, make_key(store, Permission.ADMIN)) as http:
        error = await analyse(http, "heads", body, 403)
        assert error["param"] == "requires"
    async with connect(app, make_key(store, Permission.ADMIN, Permission.RESTRICTED)) as http:
        assert (await analyse(http, "heads", body))["profile"] == "locked@1"
    readouts = [{"direction": "probe"}]
    steered = {"messages": QUESTION, "readouts": readouts, "steering": {"profile": "locked@1"}}
    async with connect(app, make_key(store, Permission.ADMIN)) as http:
        await analyse(http, "trace", steered, 403)


async def test_heads_against_a_protected_probe_are_saved_as_protected(
    served: tuple[FastAPI, Store], api: httpx.AsyncClient
) -> None:
    """Whoever may only read the probe gets the ranking, and no profile that weakens it."""
    app, store = closed_app(served), served[1]
    kept = {"name": "kept", "kind": "probe", "site": "final", "layers": [5]}
    kept |= {"requires": ["weaken:restricted"]}
    tensors = {"weight": [0.1, -0.2] * (WIDTH // 2), "bias": [0.0]}
    stored = await api.post("/v1/steering/directions", json={**kept, "tensors": tensors})
    assert stored.status_code == 201
    asked = {**BODY, "prompts": PROMPTS[:1], "probe": "kept", "check": False}
    async with connect(app, make_key(store, Permission.ADMIN)) as http:
        assert "profile" not in await analyse(http, "heads", asked)
        error = await analyse(http, "heads", {**asked, "profile": "opened"}, 403)
        assert error["param"] == "probe"
    async with connect(app, make_key(store, Permission.ADMIN, Permission.RESTRICTED)) as http:
        await analyse(http, "heads", {**asked, "profile": "opened"})
    for what in ("directions", "profiles"):
        saved = (await api.get(f"/v1/steering/{what}/opened@1")).json()
        assert saved["requires"] == ["restricted"]
