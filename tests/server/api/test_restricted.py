"""What only the permission `restricted` allows, and what anybody may with a locked direction."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from server.auth.permissions import Permission
from server.store import Store

from .conftest import chat, connect, make_key, profile, vector

CHAT = "/v1/chat/completions"
INLINE = {"operation": "add", "direction": "cheer"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"strength": -1}, 403),
        ({"operation": "ablate"}, 403),
        ({"operation": "ablate", "strength": -1}, 403),
        ({"operation": "set", "value": 9}, 403),
        ({"operation": "clamp", "minimum": 1}, 200),
        ({"operation": "clamp", "maximum": 1}, 403),
        ({"restore_norm": True}, 403),
        ({"layers": [0]}, 403),
        ({"site": "mlp_out"}, 403),
        ({"scope": {"windows": [[0, 3]]}}, 403),
        ({"strength": 100}, 403),
    ],
    ids=str,
)
async def test_a_direction_can_be_kept_from_being_weakened(
    change: dict[str, Any], status: int, closed: FastAPI, store: Store, admin: str
) -> None:
    kept = vector("kept", tensors={"vector": [3.0] * 8}, requires=["weaken:restricted"])
    async with connect(closed, admin) as client:
        assert (await client.post("/v1/steering/directions", json=kept)).status_code == 201
    steering = {"interventions": [{**INLINE, "direction": "kept", **change}]}
    async with connect(closed, make_key(store, Permission.CHAT, Permission.INLINE)) as client:
        assert (await client.post(CHAT, json=chat(steering=steering))).status_code == status


@pytest.mark.parametrize("change", [{"operation": "ablate"}, {"strength": -1.0}], ids=str)
async def test_a_lock_that_the_key_opens_does_not_open_the_next(
    change: dict[str, Any], closed: FastAPI, store: Store, admin: str
) -> None:
    async with connect(closed, admin) as client:
        for name, permission in (("kept", "restricted"), ("own", "inline"), ("ours", "admin")):
            document = vector(name, requires=[f"weaken:{permission}"])
            assert (await client.post("/v1/steering/directions", json=document)).is_success
    uses = [{**INLINE, "direction": name, **change} for name in ("own", "ours", "kept")]
    scopes = (Permission.CHAT, Permission.INLINE, Permission.ADMIN)
    async with connect(closed, make_key(store, *scopes)) as client:
        response = await client.post(CHAT, json=chat(steering={"interventions": uses[:2]}))
        assert response.status_code == 200
        response = await client.post(CHAT, json=chat(steering={"interventions": uses}))
        assert response.status_code == 403
        assert response.json()["error"]["param"] == "steering.interventions[2]"
        response = await client.post("/v1/steering/profiles", json=profile(interventions=uses))
        assert response.status_code == 403
        assert response.json()["error"]["param"] == "interventions[2]"
    async with connect(closed, admin) as client:
        response = await client.post("/v1/steering/profiles", json=profile(interventions=uses))
        assert response.json()["requires"] == ["admin", "inline", "restricted"]
        response = await client.post(CHAT, json=chat(steering={"interventions": uses}))
        assert response.status_code == 200
        query = {"action": "steering.restricted_use"}
        events = (await client.get("/v1/admin/audit", params=query)).json()["data"]
    assert len(events) == 1


@pytest.mark.parametrize("scope", ["all", "prompt", "generated", "last_prompt"])
@pytest.mark.parametrize("is_own", [True, False])
async def test_a_boundary_found_in_the_prompt_is_the_request_s_own(
    scope: str, is_own: bool, closed: FastAPI, store: Store, admin: str
) -> None:
    """Whoever writes the prompt's tokens writes the turn that the header has looked for."""
    kept = vector("kept", tensors={"vector": [3.0] * 8}, requires=["weaken:restricted"])
    async with connect(closed, admin) as client:
        assert (await client.post("/v1/steering/directions", json=kept)).status_code == 201
    headers = {"X-Steering-Prompt-Tokens": "assistant-turn"} if is_own else {}
    steering = {"interventions": [{**INLINE, "direction": "kept", "scope": {"tokens": scope}}]}
    prompt = [256, *b"user\nq", 257, 10, 256, *b"assistant\n", *b"and so on"]
    body = {"model": "echo", "prompt": prompt, "max_tokens": 2, "steering": steering}
    async with connect(closed, make_key(store, Permission.CHAT, Permission.INLINE)) as client:
        response = await client.post("/v1/completions", json=body, headers=headers)
    assert response.status_code == (403 if is_own and scope != "all" else 200), response.text


async def test_lengths_add_up_over_profile_and_request(
    closed: FastAPI, store: Store, admin: str
) -> None:
    kept = vector("kept", tensors={"vector": [3.0] * 8}, requires=["weaken:restricted"])
    async with connect(closed, admin) as client:
        assert (await client.post("/v1/steering/directions", json=kept)).status_code == 201
        assert (await client.post("/v1/steering/profiles", json=profile("k", "kept"))).is_success
    more = [{**INLINE, "direction": "kept", "strength": 1.5}]
    default = make_key(store, Permission.CHAT, Permission.INLINE, default_profile="k")
    for steering, status in (
        ({"profile": "k", "interventions": more}, 200),
        ({"profile": "k", "strength": 1.5, "interventions": more}, 403),
        ({"interventions": 2 * more}, 200),
        ({"interventions": 3 * more}, 403),
        ({"interventions": 2 * more, "compose": "add"}, 403),
    ):
        async with connect(closed, default) as client:
            response = await client.post(CHAT, json=chat(steering=steering))
        assert response.status_code == status, response.text
        if status == 403:
            error = response.json()["error"]
            assert "may weaken kept@1" in error["message"]
            assert error["param"] == f"steering.interventions[{len(steering['interventions']) - 1}]"


async def test_an_administrator_publishes_nothing_he_may_not_use(
    closed: FastAPI, store: Store, admin: str
) -> None:
    path = "/v1/steering/profiles"
    vectors = {"tensors": {"vector": [3.0] * 8}}
    async with connect(closed, admin) as client:
        for name, requires in (("kept", "weaken:restricted"), ("bypass", "restricted")):
            document = vector(name, requires=[requires], **vectors)
            assert (await client.post("/v1/steering/directions", json=document)).is_success
        for name, own in (("draft", []), ("draft-that-says-so", ["restricted"])):
            draft = profile(name, "bypass", publish=False, requires=own)
            assert (await client.post(path, json=draft)).status_code == 201
    uses: list[dict[str, Any]] = [
        {"operation": "ablate", "strength": -1.0},
        {"operation": "ablate"},
        {"operation": "add", "strength": -1.0},
        {"operation": "add", "strength": 1.0, "restore_norm": True},
        {"operation": "add", "strength": 50.0},
        {"operation": "add", "strength": 1.0, "site": "mlp_out"},
    ]
    async with connect(closed, make_key(store, Permission.ADMIN)) as client:
        for change in uses:
            document = profile("sly", interventions=[{"direction": "kept", **change}])
            response = await client.post(path, json=document)
            assert response.status_code == 403, change
            assert response.json()["error"]["param"] == "interventions[0]"
        response = await client.post(path, json=profile("sly", "bypass"))
        assert (response.status_code, response.json()["error"]["param"]) == (403, "interventions")
        for name in ("draft", "draft-that-says-so", "draft@1"):
            response = await client.post(f"{path}/{name}/publish")
            assert (response.status_code, response.json()["error"]["param"]) == (403, "name")
        assert (await client.post(path, json=profile("fine", "kept"))).json()["requires"] == []
    async with connect(closed, admin) as client:
        for change in uses:
            document = profile("sly", interventions=[{"direction": "kept", **change}])
            assert (await client.post(path, json=document)).json()["requires"] == ["restricted"]
        assert (await client.get(f"{path}/draft")).json()["status"] == "draft"


@pytest.mark.parametrize("requires", ["weaken:restricted", "restricted"])
async def test_tensors_are_read_with_every_permission_of_their_direction(
    requires: str, closed: FastAPI, store: Store, admin: str
) -> None:
    async with connect(closed, admin) as client:
        document = vector("kept", requires=[requires])
        assert (await client.post("/v1/steering/directions", json=document)).is_success
        assert (await client.post("/v1/steering/directions", json=vector("plain"))).is_success
    path = "/v1/steering/directions/{}/tensors"
    async with connect(closed, make_key(store, Permission.READ, Permission.ADMIN)) as client:
        assert (await client.get(path.format("plain"))).is_success
        for name in ("kept", "kept@1"):
            response = await client.get(path.format(name))
            assert (response.status_code, response.json()["error"]["param"]) == (403, "name")
    async with connect(closed, make_key(store, Permission.READ, Permission.RESTRICTED)) as client:
        assert (await client.get(path.format("kept"))).content
    async with connect(closed, admin) as client:
        query = {"action": "steering.restricted_use"}
        events = (await client.get("/v1/admin/audit", params=query)).json()["data"]
    assert [event["subject"] for event in events] == ["direction kept@1"]


async def test_a_negative_factor_weakens_a_profile(
    closed: FastAPI, store: Store, admin: str
) -> None:
    kept = vector("kept", tensors={"vector": [3.0] * 8}, requires=["weaken:restricted"])
    async with connect(closed, admin) as client:
        assert (await client.post("/v1/steering/directions", json=kept)).status_code == 201
        saved = await client.post("/v1/steering/profiles", json=profile("kept", "kept"))
        assert saved.json()["requires"] == []
    async with connect(closed, make_key(store, Permission.CHAT, Permission.INLINE)) as client:
        for strength, status in ((1.0, 200), (-1.0, 403)):
            steering = {"profile": "kept", "strength": strength, "ignore_max_strength": True}
            response = await client.post(CHAT, json=chat(steering=steering))
            assert response.status_code == status


async def test_restricted_steering_needs_its_scope_and_is_audited(
    closed: FastAPI, store: Store, admin: str
) -> None:
    restricted = vector("bypass", tensors={"vector": [3.0] * 8}, requires=["restricted"])
    async with connect(closed, admin) as client:
        assert (await client.post("/v1/steering/directions", json=restricted)).status_code == 201
        saved = await client.post("/v1/steering/profiles", json=profile("red", "bypass"))
        assert saved.json()["requires"] == ["restricted"], "inherited from its direction"
    inline = {"interventions": [{**INLINE, "direction": "bypass"}]}
    scopes = (Permission.CHAT, Permission.INLINE)
    for steering in ({"profile": "red"}, inline):
        async with connect(closed, make_key(store, *scopes)) as client:
            response = await client.post(CHAT, json=chat(steering=steering))
            assert response.status_code == 403
        async with connect(closed, make_key(store, *scopes, Permission.RESTRICTED)) as client:
            assert (await client.post(CHAT, json=chat(steering=steering))).status_code == 200
    async with connect(closed, admin) as client:
        query = {"action": "steering.restricted_use"}
        events = (await client.get("/v1/admin/audit", params=query)).json()["data"]
    assert [event["subject"] for event in events] == ["profile inline", "profile red@1"]
    assert all(event["key_id"] and event["request_id"] for event in events)
