"""Who may do what: keys, permissions, defaults, limits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from server.api.deps import PUBLIC
from server.api.key_gate import KeyGate
from server.api.route_list import list_routes
from server.app import create_app
from server.auth.permissions import Permission, RateLimitedError
from server.auth.rate_limit import RateLimiter
from server.pools import Pools
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect, create_cheerful, make_key, profile
from .echo_engine import EchoEngine

CHAT = "/v1/chat/completions"
INLINE = {"operation": "add", "direction": "cheer"}


def dump(settings: Settings) -> list[str]:
    """Every row of the database."""
    with closing(sqlite3.connect(settings.data_dir / "coxswain.db")) as connection:
        return list(connection.iterdump())


def test_every_route_declares_its_scope(app: FastAPI) -> None:
    routes = list_routes(app)
    assert len(routes) > 35
    for route in routes:
        assert route.permission in {PUBLIC, *Permission}, route
        assert (route.permission == PUBLIC) is route.path.startswith("/health"), route
        assert route.summary.endswith((".", ":")), route


def test_nothing_is_served_beside_the_routes(app: FastAPI) -> None:
    """What is no route of ours has no scope, the framework's own documentation included."""
    contexts = list(iter_route_contexts(app.routes))
    assert len(contexts) > 35
    assert all(isinstance(context.original_route, APIRoute) for context in contexts)


async def test_a_route_without_a_scope_answers_nobody(app: FastAPI) -> None:
    @app.get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    async with connect(app) as client:
        response = await client.get("/forgotten")
    assert response.status_code == 403
    assert "secret" not in response.text


async def test_every_route_but_health_needs_a_key(closed: FastAPI) -> None:
    async with connect(closed) as client:
        for route in list_routes(closed):
            response = await client.request(route.method, route.path)
            if route.permission == PUBLIC:
                assert response.status_code == 200
                continue
            assert response.status_code == 401, route
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic x", "Bearer sk-cox-nope", "Bearer schlüssel", "\x80\xff"],
)
async def test_every_bad_key_gets_one_answer(closed: FastAPI, authorization: str) -> None:
    async with connect(closed) as client:
        bare = await client.get("/v1/models")
        headers = {"authorization": authorization.encode("latin-1")}
        response = await client.get("/v1/models", headers=headers)
    assert response.status_code == 401
    assert response.json() == bare.json()


async def test_a_revoked_key_ends_at_once(closed: FastAPI, store: Store, admin: str) -> None:
    key = make_key(store, Permission.CHAT)
    key_id = key.split("-")[2]
    async with connect(closed, key) as client, connect(closed, admin) as other:
        assert (await client.get("/v1/models")).status_code == 200
        assert (await other.delete(f"/v1/admin/keys/{key_id}")).json()["revoked_at"]
        assert (await client.get("/v1/models")).status_code == 401


@pytest.mark.parametrize("scope", Permission)
async def test_a_key_opens_only_the_routes_of_its_scope(
    closed: FastAPI, store: Store, scope: Permission
) -> None:
    async with connect(closed, make_key(store, scope)) as client:
        for route in list_routes(closed):
            status = (await client.request(route.method, route.path)).status_code
            assert (status == 403) is (route.permission not in (PUBLIC, scope)), (route, status)


async def test_a_key_makes_no_key_above_itself(closed: FastAPI, store: Store) -> None:
    async with connect(closed, make_key(store, Permission.ADMIN, Permission.CHAT)) as client:
        made = await client.post("/v1/admin/keys", json={"name": "x", "scopes": ["chat"]})
        assert made.status_code == 201
        assert made.json()["secret"].startswith("sk-cox-")
        assert made.headers["cache-control"] == "no-store"
        above = await client.post("/v1/admin/keys", json={"name": "x", "scopes": ["restricted"]})
        assert (above.status_code, above.json()["error"]["param"]) == (403, "scopes")
        listed = (await client.get("/v1/admin/keys")).text
    assert "secret" not in listed
    assert made.json()["secret"].split("-")[3] not in listed


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": ["chat"]}, "name"),
        ({"name": "", "scopes": ["chat"]}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes"),
        ({"name": "x", "scopes": ["chat"], "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "x", "scopes": ["chat"], "expires_at": "soon"}, "expires_at"),
        ({"name": "x", "scopes": ["chat"], "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "scopes": ["chat"], "profiles_allow": ["A B"]}, "profiles_allow"),
    ],
)
async def test_a_bad_key_request_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    response = await client.post("/v1/admin/keys", json=body)
    assert response.status_code in (400, 422)
    assert response.json()["error"]["param"] == param


async def test_inline_steering_needs_its_scope(closed: FastAPI, store: Store, admin: str) -> None:
    async with connect(closed, admin) as client:
        await create_cheerful(client)
    cases = [
        ({"interventions": [INLINE]}, 403, "permission_denied", "steering.interventions"),
        ({"profile": "cheerful", "strength": 1.5}, 200, "", ""),
        ({"profile": "cheerful", "strength": 1.5, "ignore_max_strength": True}, 200, "", ""),
        (
            {"profile": "cheerful", "strength": 1.6, "ignore_max_strength": True},
            403,
            "permission_denied",
            "steering.ignore_max_strength",
        ),
    ]
    for steering, status, code, param in cases:
        async with connect(closed, make_key(store, Permission.CHAT)) as client:
            response = await client.post(CHAT, json=chat(steering=steering))
        assert response.status_code == status, response.text
        if code:
            error = response.json()["error"]
            assert (error["code"], error["param"]) == (code, param)
        async with connect(closed, make_key(store, Permission.CHAT, Permission.INLINE)) as client:
            assert (await client.post(CHAT, json=chat(steering=steering))).status_code == 200


@pytest.mark.parametrize("strength", [1.6, -0.1])
async def test_without_keys_too_a_profile_bounds_its_strength(
    client: httpx.AsyncClient, strength: float
) -> None:
    await create_cheerful(client)
    await expect_bound(client, strength)


@pytest.mark.parametrize("strength", [1.6, -0.1])
async def test_a_key_with_inline_says_that_it_leaves_the_bound(
    closed: FastAPI, store: Store, admin: str, strength: float
) -> None:
    async with connect(closed, admin) as client:
        await create_cheerful(client)
    async with connect(closed, make_key(store, Permission.CHAT, Permission.INLINE)) as client:
        await expect_bound(client, strength)


async def expect_bound(client: httpx.AsyncClient, strength: float) -> None:
    """A strength outside the profile's bounds is refused unless the request says so in words."""
    beyond = {"profile": "cheerful", "strength": strength}
    refused = (await client.post(CHAT, json=chat(steering=beyond))).json()["error"]
    assert (refused["code"], refused["param"]) == ("strength_out_of_range", "steering.strength")
    in_words = {**beyond, "ignore_max_strength": True}
    answer = (await client.post(CHAT, json=chat(steering=in_words))).json()
    assert answer["steering"]["applied"][0]["strength"] == pytest.approx(2.0 * strength)


async def test_an_allow_list_confines_a_key(closed: FastAPI, store: Store, admin: str) -> None:
    async with connect(closed, admin) as client:
        await create_cheerful(client)
        await client.post("/v1/steering/profiles", json=profile("other"))
    key = make_key(store, Permission.CHAT, profiles_allow=frozenset({"other"}))
    async with connect(closed, key) as client:
        for choice in ({"model": "echo:cheerful"}, {"steering": {"profile": "cheerful@1"}}):
            response = await client.post(CHAT, json=chat(**choice))
            assert (response.status_code, response.json()["error"]["code"]) == (
                403,
                "profile_not_allowed",
            )
        assert (await client.post(CHAT, json=chat(model="echo:other"))).status_code == 200
        models = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert models == ["echo", "echo:other"]
        assert (await client.get("/v1/models/echo:cheerful")).status_code == 404


async def test_nobody_revokes_a_key_above_his_own(
    closed: FastAPI, store: Store, admin: str
) -> None:
    above, below = (
        make_key(store, *scopes).split("-")[2]
        for scopes in ((Permission.RESTRICTED,), (Permission.CHAT,))
    )
    async with connect(closed, make_key(store, Permission.ADMIN, Permission.CHAT)) as client:
        response = await client.delete(f"/v1/admin/keys/{above}")
        assert (response.status_code, response.json()["error"]["param"]) == (403, "key_id")
        assert (await client.get(f"/v1/admin/keys/{above}")).json()["revoked_at"] is None
        assert (await client.delete(f"/v1/admin/keys/{below}")).json()["revoked_at"]


async def test_keys_share_no_cache_entries(
    closed: FastAPI, store: Store, engine: EchoEngine
) -> None:
    for _ in range(2):
        async with connect(closed, make_key(store, Permission.CHAT)) as client:
            await client.post(CHAT, json=chat())
    salts = {request.cache_salt for request in engine.requests}
    assert len(salts) == 2
    assert b"" not in salts


async def test_a_rate_is_a_burst_and_then_a_drip(store: Store) -> None:
    now = 1000.0
    gate = KeyGate(store.keys, Pools.open(), is_open=False, limiter=RateLimiter(lambda: now))
    key = f"Bearer {make_key(store, Permission.CHAT, requests_per_minute=3)}".encode()
    for _ in range(3):
        await gate.admit(key)
    with pytest.raises(RateLimitedError) as refused:
        await gate.admit(key)
    assert refused.value.retry_after_seconds == 20
    now += 20
    await gate.admit(key)
    with pytest.raises(RateLimitedError):
        await gate.admit(key)
    now += 10_000
    for _ in range(3):
        await gate.admit(key)


async def test_a_limited_key_is_told_when_to_come_back(closed: FastAPI, store: Store) -> None:
    key = make_key(store, Permission.CHAT, requests_per_minute=1)
    async with connect(closed, key) as client:
        admitted = await client.get("/v1/models")
        response = await client.get("/v1/models")
    assert admitted.status_code == 200
    assert response.status_code == 429
    for answer in (admitted, response):
        assert answer.headers["x-ratelimit-limit-requests"] == "1"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert 59 < float(answer.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    assert response.headers["retry-after"] == "60"
    assert response.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.org"])
def test_without_keys_only_loopback_is_served(
    host: str, settings: Settings, engine: EchoEngine, store: Store
) -> None:
    wide = settings.model_copy(update={"host": host})
    with pytest.raises(ValueError, match="coxswain keys create"):
        create_app(wide, engine, store)  # type: ignore[arg-type]
    make_key(store, Permission.CHAT)
    create_app(wide, engine, store)  # type: ignore[arg-type]


_FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "Cross-Site", "origin": "http://127.0.0.1"},
    {"sec-fetch-site": "something new"},
    {"sec-fetch-site": ""},
    {"sec-fetch-site": "same-origin", "origin": "http://evil.example"},
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1.evil.example"},
    {"origin": "http://127.0.0.1:3000"},
    {"origin": "https://localhost"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "127.0.0.1"},
    {"origin": "file://127.0.0.1"},
    {"origin": "chrome-extension://127.0.0.1"},
]
_OWN = [
    {},
    {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1"},
    {"sec-fetch-site": "none"},
    {"origin": "HTTP://127.0.0.1"},
    {"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"},
    {"origin": "https://localhost", "host": "localhost"},
    {"origin": "http://[::1]:80", "host": "[::1]"},
]
_UNSAFE = ("POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "post")


@pytest.mark.parametrize("headers", _FOREIGN, ids=str)
async def test_a_page_of_another_site_changes_nothing(
    app: FastAPI, settings: Settings, headers: dict[str, str]
) -> None:
    async with connect(app) as client:
        await create_cheerful(client)
        before = dump(settings)
        paths = {route.path for route in list_routes(app)} | {"/nowhere"}
        for path in sorted(paths):
            url = path.replace("{name}", "cheerful").replace("{model:path}", "echo")
            for method in _UNSAFE:
                response = await client.request(method, url, headers=headers)
                assert response.status_code == 403, (method, path)
                assert response.json()["error"]["code"] == "cross_site_request"
    assert dump(settings) == before


@pytest.mark.parametrize("headers", _OWN, ids=str)
async def test_programs_and_own_pages_are_served(app: FastAPI, headers: dict[str, str]) -> None:
    async with connect(app) as client:
        assert (await client.post(CHAT, json=chat(), headers=headers)).status_code == 200


async def test_a_page_of_a_trusted_host_is_own_whatever_host_its_proxy_writes(
    settings: Settings, engine: EchoEngine, store: Store
) -> None:
    trusting = settings.model_copy(update={"trusted_hosts": ["Chat.example.org"]})
    app = create_app(trusting, engine, store)  # type: ignore[arg-type]
    async with connect(app) as client:
        for origin, status in (
            ("https://chat.example.org", 200),
            ("https://chat.example.org:8443", 200),
            ("https://chat.example.org.evil.example", 403),
            ("https://localhost", 403),
        ):
            response = await client.post(CHAT, json=chat(), headers={"origin": origin})
            assert response.status_code == status, origin


async def test_reading_changes_nothing(app: FastAPI, settings: Settings) -> None:
    """Else a link or an image on any page would change it."""
    async with connect(app) as client:
        await create_cheerful(client)
        before = dump(settings)
        for route in list_routes(app):
            if route.method in ("GET", "HEAD", "OPTIONS"):
                for name in ("cheerful", "cheer"):
                    path = route.path.replace("{name}", name).replace("{model:path}", "echo")
                    await client.request(route.method, path)
    assert dump(settings) == before


async def test_the_documentation_needs_a_key_where_keys_exist(
    closed: FastAPI, store: Store, admin: str
) -> None:
    for path in ("/docs", "/openapi.json"):
        for key, status in ((None, 401), (make_key(store, Permission.CHAT), 403), (admin, 200)):
            async with connect(closed, key) as client:
                assert (await client.get(path)).status_code == status
    async with connect(closed, admin) as client:
        assert (await client.get("/docs/oauth2-redirect")).status_code == 404


async def test_nothing_secret_is_logged(
    closed: FastAPI, store: Store, logs: list[Any], admin: str
) -> None:
    key = make_key(store, Permission.CHAT)
    async with connect(closed, key) as client:
        await client.post(CHAT, json=chat("my secret text"))
        await client.post(CHAT, json=chat("my secret text", temperature=9))
    assert {entry["event"] for entry in logs} >= {"generation", "request_refused"}
    assert "secret text" not in repr(logs)
    assert key not in repr(logs)
