"""The application over the echo engine, reached without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from server.app import create_app
from server.auth.permissions import LOCAL_USER, Permission
from server.pools import Pools
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import SYSTEM, KeySpec, Store

from .documented import check_documented
from .echo_engine import EchoEngine


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """What was logged, instead of rendering it."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """What applications over it still write is written before it is closed."""
    made: list[Pools] = []

    def recorded() -> Pools:
        made.append(pools := opens())
        return pools

    opens = Pools.open
    monkeypatch.setattr(Pools, "open", recorded)
    opened = Store.open(tmp_path / "data", load=load_direction_blob, low_water_bytes=0)
    yield opened
    for pools in made:
        pools.close()
    opened.close()


@pytest.fixture
def engine() -> EchoEngine:
    return EchoEngine()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", max_body_bytes=2**20, max_upload_bytes=2**20)


@pytest.fixture
def app(settings: Settings, engine: EchoEngine, store: Store) -> FastAPI:
    return create_app(settings, engine, store)  # type: ignore[arg-type]


@pytest.fixture
def admin(store: Store) -> str:
    """A key that may do everything."""
    return make_key(store, *Permission)


@pytest.fixture
def closed(admin: str, settings: Settings, engine: EchoEngine, store: Store) -> FastAPI:
    """The application of a store that has keys."""
    return create_app(settings, engine, store)  # type: ignore[arg-type]


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(app) as http:
        yield http


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """One application for a table of requests that change nothing; it has one profile."""
    folder = tmp_path_factory.mktemp("shared")
    opened = Store.open(folder, load=load_direction_blob, low_water_bytes=0)
    settings = Settings(data_dir=folder, max_body_bytes=2**20, max_upload_bytes=2**20)
    yield create_app(settings, EchoEngine(), opened)  # type: ignore[arg-type]
    opened.close()


@pytest.fixture
async def shared(shared_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(shared_app) as http:
        existing = (await http.get("/v1/steering/profiles")).json()["data"]
        if not existing:
            await create_cheerful(http)
        yield http


def connect(app: FastAPI, key: str | None = None) -> httpx.AsyncClient:
    """A client whose every answer is held against the OpenAPI document."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    return httpx.AsyncClient(
        transport=transport,
        base_url="http://127.0.0.1",
        headers=headers,
        event_hooks={"response": [check_documented]},
    )


def make_key(store: Store, *permissions: Permission, **limits: Any) -> str:
    spec = KeySpec("test", frozenset(permissions), **limits)
    return store.keys.create(spec, minter=LOCAL_USER, by=SYSTEM).secret


def chat(content: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": content}], **fields}


def vector(name: str = "cheer", layers: tuple[int, ...] = (1,), **fields: Any) -> dict[str, Any]:
    """A direction as JSON: the first axis of the echo model."""
    return {
        "name": name,
        "kind": "vector",
        "site": "resid_post",
        "layers": list(layers),
        "tensors": {"vector": [1.0, 0, 0, 0, 0, 0, 0, 0]},
        **fields,
    }


def profile(name: str = "cheerful", direction: str = "cheer", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "interventions": [{"operation": "add", "direction": direction, "strength": 2.0}],
        "publish": True,
        **fields,
    }


async def create_cheerful(client: httpx.AsyncClient) -> None:
    for path, body in (("directions", vector()), ("profiles", profile())):
        response = await client.post(f"/v1/steering/{path}", json=body)
        assert response.status_code == 201, response.text
