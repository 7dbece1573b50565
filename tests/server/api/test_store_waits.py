"""Chats go on while the store waits for a lock, hangs or is gone; what needs it ends with 503."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import URL

from server.api.http.lifecycle import StoreHealth
from server.app import create_app
from server.auth.permissions import Permission
from server.pools import Pool
from server.registry.upload import Uploader
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store, bounded_connection, database
from server.store.errors import StoreUnavailableError
from tests.server.store.conftest import cluster
from tests.server.store.postgres import Cluster

from .conftest import chat, connect, create_cheerful, make_key, profile, vector
from .echo_engine import EchoEngine
from .test_bad_uploads import upload

__all__ = ["cluster"]

CHAT = "/v1/chat/completions"
STEERED = chat(model="echo:cheerful")
ADDED = chat(steering={"interventions": [{"operation": "add", "direction": "cheer"}]})
NUM_WRITERS = 20
NUM_PLACES = 18  # of the pool for uploads: two threads and a queue of 16


@pytest.fixture
async def app(settings: Settings, engine: EchoEngine, store: Store) -> FastAPI:
    make_key(store, Permission.READ)
    return create_app(settings, engine, store)  # type: ignore[arg-type]


@pytest.fixture
async def client(app: FastAPI, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """With a key and steering that the server knows."""
    async with connect(app, make_key(store, *Permission)) as http:
        await create_cheerful(http)
        await chats_go_on(http)
        yield http


async def chats_go_on(client: httpx.AsyncClient) -> None:
    for body in (chat(), STEERED, ADDED):
        answer = await client.post(CHAT, json=body)
        assert answer.status_code == 200, answer.text


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    path = settings.data_dir / "coxswain.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def writes(client: httpx.AsyncClient) -> list[asyncio.Task[httpx.Response]]:
    requests = [
        client.post("/v1/steering/profiles", json=profile(f"p{index}"))
        for index in range(NUM_WRITERS)
    ]
    return [asyncio.create_task(request) for request in requests]  # type: ignore[arg-type]


@pytest.fixture
async def impatient(
    request: pytest.FixtureRequest,
    settings: Settings,
    engine: EchoEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server whose writers wait `request.param` seconds for SQLite's lock."""
    # Made by a server that waits as usual: it notes the use of the key beside what it makes.
    before = Store.open(tmp_path / "data", load=load_direction_blob, low_water_bytes=0)
    secret = make_key(before, *Permission)
    maker = create_app(settings, engine, before)  # type: ignore[arg-type]
    async with connect(maker, secret) as http:
        await create_cheerful(http)
    maker.state.services.pools.close()
    before.close()
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", request.param)
    store = Store.open(tmp_path / "data", load=load_direction_blob, low_water_bytes=0)
    app = create_app(settings, engine, store)  # type: ignore[arg-type]
    async with connect(app, secret) as http:
        await chats_go_on(http)
        yield http
    app.state.services.pools.close()
    store.close()


@pytest.mark.parametrize("impatient", [600.0], indirect=True)
async def test_chats_wait_for_no_writer(impatient: httpx.AsyncClient, settings: Settings) -> None:
    """Steered or not; nor do reads."""
    with locked(settings):
        waiting = writes(impatient)
        await chats_go_on(impatient)
        assert (await impatient.get("/v1/steering/profiles")).status_code == 200
        assert (await impatient.get("/health/ready")).status_code == 200
        assert not all(task.done() for task in waiting)
    answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} <= {201, 503}
    assert answers[0].status_code == 201, "what runs when the lock is let go of is done"


@pytest.mark.parametrize("impatient", [600.0], indirect=True)
async def test_an_analysis_waits_for_no_writer(
    impatient: httpx.AsyncClient, settings: Settings
) -> None:
    probe = vector("probe", kind="probe", tensors={"weight": [1.0] * 8, "bias": [0.5]})
    assert (await impatient.post("/v1/steering/directions", json=probe)).status_code == 201
    with locked(settings):
        waiting = writes(impatient)
        await chats_go_on(impatient)
        for path, asked in (
            ("trace", {"prompt": "x", "readouts": [{"direction": "cheer"}]}),
            ("heads", {"prompts": ["x"], "probe": "probe", "method": "causal"}),
        ):
            answer = await impatient.post(f"/v1/steering/analyze/{path}", json=asked)
            assert answer.status_code == 200, answer.text
        assert not all(task.done() for task in waiting)
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("impatient", [0.0], indirect=True)
async def test_a_lock_that_is_never_let_go_of_is_503_for_every_writer(
    impatient: httpx.AsyncClient, settings: Settings
) -> None:
    with locked(settings):
        answers = await asyncio.gather(*writes(impatient))
        await chats_go_on(impatient)
    codes = {(answer.status_code, answer.json()["error"]["code"]) for answer in answers}
    assert codes == {(503, "store_unavailable")}
    assert all("retry-after" in answer.headers for answer in answers)


@pytest.fixture
def frozen_store(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    monkeypatch.setattr(bounded_connection, "ANSWER_SECONDS", 4.0)
    url: URL = cluster.shared_database()
    opened = Store.open(tmp_path / "pg", url, load=load_direction_blob, low_water_bytes=0)
    yield opened
    opened.close()


async def test_a_database_that_hangs_holds_up_no_chat_and_everything_else_ends(
    cluster: Cluster, frozen_store: Store, settings: Settings, engine: EchoEngine
) -> None:
    """Its processes are stopped: connections stay open, and new ones are taken and not answered."""
    make_key(frozen_store, Permission.READ)
    secret = make_key(frozen_store, *Permission)
    app = create_app(settings, engine, frozen_store)  # type: ignore[arg-type]
    async with connect(app, secret) as client:
        await create_cheerful(client)
        await chats_go_on(client)
        with cluster.frozen():
            reads = [
                asyncio.create_task(client.get(f"/v1/steering/{noun}"))
                for noun in ("profiles", "directions", "aliases") * 4
            ]
            waiting = [*reads, *writes(client)]
            first = asyncio.create_task(chats_go_on(client))
            done, _ = await asyncio.wait({first, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {first}, "a chat ends before any that asks the database"
            first.result()
            not_ready = await client.get("/health/ready")
            assert not_ready.status_code == 503
            assert "the store does not answer" in not_ready.json()["error"]["message"]
            assert (await client.get("/health/live")).status_code == 200
            answers = await asyncio.gather(*waiting)
            codes = {(answer.status_code, answer.json()["error"]["code"]) for answer in answers}
            assert codes <= {(503, "store_unavailable"), (503, "store_busy")}
            await chats_go_on(client)
        assert (await client.get("/v1/steering/profiles")).status_code == 200, "it comes back"
        assert (await client.post("/v1/steering/profiles", json=profile("new"))).is_success
    app.state.services.pools.close()


@pytest.fixture
def go(store: Store) -> Iterator[threading.Event]:
    """Lets blocked threads go on; at the latest before the store is closed."""
    event = threading.Event()
    yield event
    event.set()


async def test_uploads_fill_no_threads_but_their_own(
    client: httpx.AsyncClient, go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Uploader.from_file

    def slow(self: Uploader, *args: Any, **kwargs: Any) -> Any:
        go.wait()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Uploader, "from_file", slow)
    metadata = {"name": "up"}
    pending = {asyncio.create_task(upload(client, b"", metadata)) for _ in range(3 * NUM_PLACES)}
    waiting = list(pending)
    while len(pending) > NUM_PLACES:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    await chats_go_on(client)
    assert (await client.get("/v1/steering/directions")).status_code == 200
    assert (await client.post("/v1/steering/profiles", json=profile("new"))).status_code == 201
    refused = [task.result() for task in waiting if task.done()]
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_busy")
        assert "retry-after" in answer.headers
    assert len(refused) == 2 * NUM_PLACES
    go.set()
    answers = await asyncio.gather(*pending)
    assert {answer.status_code for answer in answers} == {400}, "an empty file is no direction"


async def test_a_database_whose_file_is_gone_takes_no_writes_and_is_not_ready(
    client: httpx.AsyncClient, settings: Settings, tmp_path: Path
) -> None:
    path, aside = settings.data_dir / "coxswain.db", tmp_path / "aside"
    path.rename(aside)
    for replacement in (None, b"another"):
        if replacement is not None:
            path.write_bytes(replacement)
        refused = await client.post("/v1/steering/profiles", json=profile("lost"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_replaced")
        assert "restart the server" in refused.json()["error"]["message"]
        await chats_go_on(client)
    assert path.read_bytes() == b"another"
    aside.rename(path)
    assert (await client.post("/v1/steering/profiles", json=profile("kept"))).status_code == 201


async def test_readiness_asks_once_a_second_and_waits_no_longer_than_it_may(
    store: Store, go: threading.Event, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [100.0]
    pool = Pool("test", 1, max_waiting=1)
    health = StoreHealth(store, pool, patience=0.0, clock=lambda: seconds[0])
    asked: list[int] = []
    real = store.audit.last_change

    def slow() -> int:
        asked.append(1)
        go.wait()
        return real()

    monkeypatch.setattr(type(store.audit), "last_change", lambda _: slow())
    for _ in range(3):
        assert await health.why_not_ready() == "the store does not answer"
        seconds[0] += 5
    assert len(asked) <= 1, "one question at a time"
    go.set()
    assert health._asking is not None
    await health._asking
    seconds[0] += 1
    await health.why_not_ready()
    await health._asking
    for _ in range(5):
        assert await health.why_not_ready() is None
    assert len(asked) == 2, "and one answer a second"

    def away(_: object) -> int:
        raise StoreUnavailableError("connection to 10.0.0.1 failed")

    monkeypatch.setattr(type(store.audit), "last_change", away)
    seconds[0] += 1
    await health.why_not_ready()
    await health._asking
    reason = await health.why_not_ready()
    assert reason == "the store cannot be used; the server's log says why"
    (settings.data_dir / "coxswain.db").unlink()
    monkeypatch.undo()
    seconds[0] += 1
    await health.why_not_ready()
    await health._asking
    assert "restart the server" in (await health.why_not_ready() or "")
    pool.close()
