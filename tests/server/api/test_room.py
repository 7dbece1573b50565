"""A full queue is told before a request costs anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from server.api.route_list import list_routes
from server.app import create_app
from server.auth.permissions import Permission
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect, make_key
from .echo_engine import EchoEngine

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
OF_THE_ENGINE = {CHAT, "/v1/completions"}
OF_THE_ENGINE |= {f"/v1/steering/analyze/{name}" for name in ("trace", "score", "cliff", "heads")}


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read")
    yield b""


async def test_a_full_queue_is_told_before_any_body_is_read(
    settings: Settings, engine: EchoEngine, store: Store
) -> None:
    key = make_key(store, *Permission)
    app = create_app(settings, engine, store)  # type: ignore[arg-type]
    engine.num_waiting = settings.max_queued_requests
    told = set()
    async with connect(app, key) as client:
        for route in list_routes(app):
            if route.method != "POST":
                continue
            try:
                response = await client.post(route.path, content=unread(), headers=JSON)
            except AssertionError:
                continue
            if response.status_code == 429:
                told.add(route.path)
                assert response.json()["error"]["code"] == "rate_limit_exceeded"
                assert response.headers["retry-after"] == "1"
    assert told == OF_THE_ENGINE == {r.path for r in list_routes(app) if r.is_queued}


class Work:
    """An offload in which work waits for `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: asyncio.Queue[None] = asyncio.Queue()

    async def run(self, request: object, work: object, *args: object) -> object:
        del request
        self.begun.put_nowait(None)
        await self.go.wait()
        return work(*args)  # type: ignore[operator]

    async def run_sized(self, size: int, work: object, *args: object) -> object:
        return await self.run(size, work, *args)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_who_is_being_read_has_a_place_and_who_is_awaited_has_none(
    settings: Settings, engine: EchoEngine, store: Store, path: str
) -> None:
    few = settings.model_copy(update={"max_queued_requests": 3})
    app: FastAPI = create_app(few, engine, store)  # type: ignore[arg-type]
    work, come = Work(), asyncio.Event()
    services = app.state.services
    object.__setattr__(services, "offload", work)
    engine.num_waiting = 1
    body = chat() if path == CHAT else {"model": "echo", "prompt": "hello"}
    content = json.dumps(body).encode()
    coming: asyncio.Queue[None] = asyncio.Queue()

    async def slow() -> AsyncIterator[bytes]:
        coming.put_nowait(None)
        await come.wait()
        yield content

    async with connect(app) as client:

        def post(body: bytes | AsyncIterator[bytes]) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.post(path, content=body, headers=JSON))

        awaited = [post(slow()) for _ in range(5)]
        for _ in awaited:
            await coming.get()
        held = [post(content) for _ in range(2)]
        for _ in held:
            await work.begun.get()
        assert (await post(unread())).status_code == 429
        come.set()
        assert [(await task).status_code for task in awaited] == [429] * 5
        work.go.set()
        assert [(await task).status_code for task in held] == [200] * 2
        bad = await post(b"{")  # a place is given back however its holder ends
        assert bad.status_code == 400
        engine.num_waiting = 2
        assert (await post(content)).status_code == 200
