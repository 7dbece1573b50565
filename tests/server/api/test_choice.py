"""Which steering a request chooses, and what it does not choose."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.app import create_app
from server.auth.permissions import Permission
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect, create_cheerful, make_key, profile
from .echo_engine import EchoEngine

CHAT = "/v1/chat/completions"
INLINE = {"operation": "add", "direction": "cheer"}


async def test_defaults_apply_beneath_explicit_choices(
    store: Store, engine: EchoEngine, settings: Settings, admin: str
) -> None:
    chosen = settings.model_copy(update={"default_profile": "server"})
    app = create_app(chosen, engine, store)  # type: ignore[arg-type]
    async with connect(app, admin) as client:
        await create_cheerful(client)
        for name in ("server", "key"):
            await client.post("/v1/steering/profiles", json=profile(name))
    plain = make_key(store, Permission.CHAT, Permission.INLINE)
    keyed = make_key(store, Permission.CHAT, Permission.INLINE, default_profile="key")
    cases: list[tuple[str, dict[str, Any], str]] = [
        (plain, {}, "server@1"),
        (keyed, {}, "key@1"),
        (keyed, {"model": "echo:none"}, "none"),
        (keyed, {"steering": {"profile": "none"}}, "none"),
        (keyed, {"steering": {"profile": "cheerful"}}, "cheerful@1"),
        (keyed, {"steering": {"strength": 0.5}}, "key@1"),
        (keyed, {"steering": {"interventions": [INLINE]}}, "inline"),
        (keyed, {"steering": {"interventions": [INLINE], "compose": "add"}}, "key@1+inline"),
        (keyed, {"steering": {"profile": "none", "interventions": [INLINE]}}, "inline"),
    ]
    for key, fields, applied in cases:
        async with connect(app, key) as client:
            response = await client.post(CHAT, json=chat(**fields))
        assert response.headers["x-steering-applied"] == applied, fields


async def test_adding_to_a_default_applies_both_in_order(
    store: Store, engine: EchoEngine, settings: Settings, admin: str
) -> None:
    chosen = settings.model_copy(update={"default_profile": "server"})
    app = create_app(chosen, engine, store)  # type: ignore[arg-type]
    async with connect(app, admin) as client:
        await create_cheerful(client)
        item = {**INLINE, "strength": 7.0}
        await client.post("/v1/steering/profiles", json=profile("server", interventions=[item]))
        steering = {"profile": "cheerful", "compose": "add", "strength": 0.5}
        answer = (await client.post(CHAT, json=chat(steering=steering))).json()
    assert [item["strength"] for item in answer["steering"]["applied"]] == [7.0, 1.0]


@pytest.mark.parametrize("default", ["cheerful", "cheerful@1", "merry", "plain"])
@pytest.mark.parametrize("chosen", ["cheerful", "cheerful@1", "merry", "plain"])
async def test_a_strength_is_the_chosen_profile_s_even_where_it_is_the_default_too(
    store: Store, engine: EchoEngine, settings: Settings, admin: str, default: str, chosen: str
) -> None:
    served = settings.model_copy(update={"default_profile": default})
    app = create_app(served, engine, store)  # type: ignore[arg-type]
    stored = {"plain": 3.0}
    async with connect(app, admin) as client:
        await create_cheerful(client)
        item = {**INLINE, "strength": 3.0}
        await client.post("/v1/steering/profiles", json=profile("plain", interventions=[item]))
        await client.put("/v1/steering/aliases/merry", json={"profile": "cheerful@1"})
        steering = {"profile": chosen, "compose": "add", "strength": 0.5}
        for _ in range(2):  # the second finds every name in the cache
            answer = (await client.post(CHAT, json=chat(steering=steering))).json()
            strengths = [item["strength"] for item in answer["steering"]["applied"]]
            assert strengths == [stored.get(default, 2.0), stored.get(chosen, 2.0) / 2]


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"model": "echo:cheerful", "steering": {"profile": "other"}}, {}),
        ({"model": "echo:cheerful"}, {"x-steering-profile": "other"}),
        ({"model": "echo:cheerful"}, {"x-steering-profile": "none"}),
        ({"steering": {"profile": "cheerful@1"}}, {"x-steering-profile": "cheerful"}),
    ],
)
async def test_choices_that_disagree_are_a_conflict(
    client: httpx.AsyncClient, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    await create_cheerful(client)
    await client.post("/v1/steering/profiles", json=profile(description="v2"))
    await client.post("/v1/steering/profiles", json=profile("other"))
    response = await client.post(CHAT, json=chat(**fields), headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "steering_conflict")
