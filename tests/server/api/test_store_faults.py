"""Every route while the database fails: it works, or says that it cannot now; it blames nobody."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI

from server.api.route_list import list_routes
from server.app import create_app
from server.auth.permissions import Permission
from server.settings import Settings
from server.store import Store
from tests.server.jobs.fake_kinds import Steps

from .conftest import chat, connect, create_cheerful, make_key, profile, vector
from .echo_engine import EchoEngine

STEERING = "/v1/steering"
INLINE = {"interventions": [{"operation": "add", "direction": "cheer"}]}


@dataclass
class Ask:
    """A request that is right, and the route it goes to where its path does not say."""

    method: str
    path: str
    body: Any = None
    route: str | None = None
    needs_model: bool = False
    params: dict[str, str] = field(default_factory=dict)


def requests(job: str, running: str, key: str) -> list[Ask]:
    """At least one of each route, in an order in which all of them succeed."""
    analyze, jobs = f"{STEERING}/analyze", f"{STEERING}/jobs"
    names = [
        *(Ask("POST", path, {"prompt": "x"}) for path in ("/tokenize", "/v1/tokenize")),
        *(Ask("POST", path, {"tokens": [65]}) for path in ("/detokenize", "/v1/detokenize")),
        *(Ask("GET", path) for path in ("/tokenizer_info", "/v1/tokenizer_info")),
        *(Ask("GET", path) for path in ("/health", "/health/live", "/health/ready", "/metrics")),
        *(Ask("GET", path) for path in ("/v1/models", "/v1/capabilities", "/v1/admin/audit")),
        Ask("GET", "/v1/models/echo:cheerful", route="/v1/models/{model:path}"),
        Ask("GET", "/v1/models/echo", route="/v1/models/{model:path}"),
    ]
    chats = [
        Ask("POST", "/v1/chat/completions", chat()),
        Ask("POST", "/v1/chat/completions", chat(model="echo:cheerful")),
        Ask("POST", "/v1/chat/completions", chat(steering=INLINE)),
        Ask("POST", "/v1/chat/completions", chat(steering={"profile": "live"})),
        Ask("POST", "/v1/completions", {"model": "echo:cheerful", "prompt": "hello"}),
        Ask("POST", f"{analyze}/score", {"prompt": "x", "steering": INLINE}, needs_model=True),
        Ask(
            "POST",
            f"{analyze}/trace",
            {"prompt": "x", "readouts": [{"direction": "cheer"}]},
            needs_model=True,
        ),
        Ask("POST", f"{analyze}/heads", {"prompts": ["x"], "probe": "probe"}, needs_model=True),
        Ask(
            "POST",
            f"{analyze}/cliff",
            {
                "conversations": [
                    [
                        {"role": "user", "content": "x"},
                        {"role": "assistant", "content": "<think>\na\n</think>\nb"},
                    ]
                ],
                "probe": "probe",
            },
            needs_model=True,
        ),
    ]
    changes = [
        Ask("POST", f"{STEERING}/directions", vector("other")),
        Ask("POST", f"{STEERING}/profiles", profile("draft", publish=False)),
        Ask("POST", f"{STEERING}/profiles", profile("absent", "cheer@1")),
        Ask("POST", f"{STEERING}/profiles:validate", profile("draft")),
        Ask(
            "POST",
            f"{STEERING}/profiles/draft/publish",
            route=f"{STEERING}/profiles/{{name}}/publish",
        ),
        Ask(
            "PUT",
            f"{STEERING}/aliases/calm",
            {"profile": "cheerful"},
            route=f"{STEERING}/aliases/{{alias}}",
        ),
        Ask("POST", "/v1/admin/keys", {"name": "new", "scopes": ["chat"]}),
        Ask("POST", jobs, {"kind": "steps", "steps": 1}),
        Ask("POST", f"{jobs}/{job}/rerun", route=f"{jobs}/{{job_id}}/rerun"),
    ]
    reads = [
        *(
            Ask("GET", f"{STEERING}/{noun}")
            for noun in ("directions", "profiles", "aliases", "jobs")
        ),
        Ask("GET", f"{STEERING}/aliases/live", route=f"{STEERING}/aliases/{{alias}}"),
        *(
            Ask(
                "GET",
                f"{STEERING}/directions/cheer{end}",
                route=f"{STEERING}/directions/{{name}}{end}",
            )
            for end in ("", "/versions", "/tensors")
        ),
        *(
            Ask(
                "GET",
                f"{STEERING}/profiles/cheerful{end}",
                route=f"{STEERING}/profiles/{{name}}{end}",
            )
            for end in ("", "/versions")
        ),
        *(Ask("GET", path) for path in ("/docs", "/openapi.json")),
        Ask("GET", "/v1/admin/keys"),
        Ask("GET", f"/v1/admin/keys/{key}", route="/v1/admin/keys/{key_id}"),
        *(
            Ask("GET", f"{jobs}/{job}{end}", route=f"{jobs}/{{job_id}}{end}")
            for end in ("", "/events")
        ),
    ]
    ends = [
        Ask("DELETE", f"{jobs}/{running}", route=f"{jobs}/{{job_id}}"),
        Ask("POST", f"{jobs}/{running}/resume", route=f"{jobs}/{{job_id}}/resume"),
        Ask("DELETE", f"{STEERING}/aliases/live", route=f"{STEERING}/aliases/{{alias}}"),
        Ask("DELETE", f"{STEERING}/profiles/draft", route=f"{STEERING}/profiles/{{name}}"),
        Ask("DELETE", f"{STEERING}/directions/other", route=f"{STEERING}/directions/{{name}}"),
        Ask("DELETE", f"/v1/admin/keys/{key}", route="/v1/admin/keys/{key_id}"),
    ]
    return [*names, *chats, *changes, *reads, *ends]


def spoil(store: Store) -> None:
    """Make the database a file that is none; what is connected lets go of it."""
    store.close()
    path = Path(str(store.database.url.database))
    path.write_bytes(b"not a database at all " * 100)


@pytest.fixture
async def app(
    request: pytest.FixtureRequest, settings: Settings, engine: EchoEngine, store: Store
) -> AsyncIterator[FastAPI]:
    """Asks for a key where `request.param` says so."""
    if request.param:
        make_key(store, Permission.READ)
    app = create_app(settings, engine, store, kinds=[Steps().kind])  # type: ignore[arg-type]
    await app.state.services.jobs.start()
    yield app
    await app.state.services.jobs.stop()


@pytest.fixture(autouse=True)
def no_default_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever wants a thread that is everybody's fails."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a thread of the default pool was asked for")

    monkeypatch.setattr(anyio.to_thread, "run_sync", refuse)
    monkeypatch.setattr(asyncio, "to_thread", refuse)


async def send(client: httpx.AsyncClient, ask: Ask, **headers: str) -> httpx.Response:
    return await client.request(ask.method, ask.path, json=ask.body, headers=headers)


async def prepared(client: httpx.AsyncClient) -> list[Ask]:
    await create_cheerful(client)
    probe = vector("probe", kind="probe", tensors={"weight": [1.0] * 8, "bias": [0.5]})
    assert (await client.post(f"{STEERING}/directions", json=probe)).status_code == 201
    await client.put(f"{STEERING}/aliases/live", json={"profile": "cheerful"})
    made = []
    for request in ({"steps": 1}, {"steps": 1, "stop_at": 0}):
        job = (await client.post(f"{STEERING}/jobs", json={"kind": "steps", **request})).json()
        made.append(job["id"])
    await client.get(f"{STEERING}/jobs/{made[0]}/events")
    key = await client.post("/v1/admin/keys", json={"name": "spare", "scopes": ["read"]})
    return requests(*made, key.json()["id"])


@pytest.mark.parametrize("is_named", [False, True], ids=["", "Idempotency-Key"])
@pytest.mark.parametrize("app", [False, True], ids=["open", "key"], indirect=True)
async def test_every_route_works_or_says_that_it_cannot_now(
    app: FastAPI, store: Store, is_named: bool
) -> None:
    names = itertools.count()

    def named(ask: Ask) -> dict[str, str]:
        return {"idempotency-key": f"n{next(names)}"} if is_named and ask.method == "POST" else {}

    async with connect(app, make_key(store, *Permission)) as client:
        asks = await prepared(client)
        routes = {(route.method, route.path) for route in list_routes(app)}
        assert {(ask.method, ask.route or ask.path) for ask in asks} == routes
        wrong = {}
        for ask in asks:
            if (
                not ask.needs_model
                and not (answer := await send(client, ask, **named(ask))).is_success
            ):
                wrong[ask.method, ask.path] = answer.text
        assert wrong == {}, "requests that are wrong in themselves show nothing"
        spoil(store)
        for ask in asks:
            answer = await send(client, ask, **named(ask))
            if answer.is_success:
                continue
            error = answer.json()["error"]
            code = "server_is_overloaded" if ask.path.startswith("/health") else "store_unavailable"
            if (answer.status_code, error["code"]) != (503, code):
                wrong[ask.method, ask.path] = answer.text
        assert wrong == {}
