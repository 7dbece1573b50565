"""The client against the real application, over an engine that echoes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from safetensors.torch import save
from starlette.routing import compile_path

from coxswain_client import (
    AsyncCoxswain,
    BadRequestError,
    ConflictError,
    NotFoundError,
    UnprocessableError,
)
from server.app import create_app
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store
from tests.server.api.echo_engine import EchoEngine
from tests.server.jobs.fake_kinds import Steps


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    """Its jobs wait: nothing runs them."""
    store = Store.open(tmp_path, load=load_direction_blob, low_water_bytes=0)
    settings = Settings(data_dir=tmp_path)
    yield create_app(settings, EchoEngine(), store, kinds=[Steps().kind])  # type: ignore[arg-type]
    store.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncCoxswain]:
    async with AsyncCoxswain(
        "http://127.0.0.1", transport=httpx.ASGITransport(app), max_retries=0
    ) as opened:
        yield opened


async def _width(client: AsyncCoxswain) -> int:
    model: dict[str, Any] = (await client.capabilities())["model"]
    return int(model["hidden_size"])


async def _cheer(client: AsyncCoxswain) -> bytes:
    """Upload a direction; returns its file."""
    file = save({"vector": torch.ones(await _width(client))})
    await client.directions.upload(
        file, filename="c.safetensors", name="cheer", kind="vector", site="resid_post", layers=[1]
    )
    return file


async def test_a_direction_goes_and_comes_back(client: AsyncCoxswain) -> None:
    file = await _cheer(client)
    found = await client.directions.get("cheer")
    assert (found.version, found.kind, found.layers) == (1, "vector", [1])
    assert await client.directions.tensors("cheer@1") == file
    assert [d.name for d in (await client.directions.list()).data] == ["cheer"]
    tensors = {"vector": [2.0] * found.width}
    second = await client.directions.create(
        name="cheer", kind="vector", site="resid_post", layers=[1], tensors=tensors
    )
    assert second.version == 2
    versions = await client.directions.versions("cheer", limit=1)
    assert versions.next_cursor is not None
    rest = await client.directions.versions("cheer", limit=1, cursor=versions.next_cursor)
    assert [versions.data[0].version, rest.data[0].version] == [2, 1]
    assert (await client.directions.delete("cheer@2")).versions == [2]


async def test_a_profile_is_made_and_used(client: AsyncCoxswain) -> None:
    await _cheer(client)
    use: Any = [{"operation": "add", "direction": "cheer", "strength": 0.5}]
    plan = await client.profiles.validate("cheerful", use)
    assert plan.is_valid
    draft = await client.profiles.create("cheerful", use, description="Glad.")
    assert draft.status == "draft"
    published = await client.profiles.publish("cheerful@1")
    assert published.status == "published"
    await client.aliases.set("prod", "cheerful@1")
    assert [(a.alias, a.profile) for a in (await client.aliases.list()).data] == [
        ("prod", "cheerful@1")
    ]
    base, steered = (await client.models()).data
    assert steered.parent == base.id
    answer = await client.chat("Hello", model=base.id, profile="prod", max_tokens=4)
    assert (answer.steering.profile, answer.steering.version) == ("cheerful", 1)
    assert answer.steering.steered_tokens.generated > 0
    with pytest.raises(ConflictError, match="cheerful"):
        await client.directions.delete("cheer")


async def test_a_stream_says_what_was_applied(client: AsyncCoxswain) -> None:
    await _cheer(client)
    model = (await client.models()).data[0].id
    use: Any = [{"operation": "add", "direction": "cheer"}]
    whole = await client.chat("Hello", model=model, interventions=use, max_tokens=6)
    stream = client.stream_chat("Hello", model=model, interventions=use, max_tokens=6)
    async with stream:
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].steering is not None
    assert chunks[-1].steering.fingerprint == whole.steering.fingerprint


async def test_text_is_continued(client: AsyncCoxswain) -> None:
    model = (await client.models()).data[0].id
    answer = await client.complete("Once upon", model=model, max_tokens=3)
    assert answer.usage.completion_tokens == 3


async def test_faults_have_their_types(client: AsyncCoxswain) -> None:
    model = (await client.models()).data[0].id
    with pytest.raises(NotFoundError) as missing:
        await client.chat("Hello", model=model, profile="nobody")
    assert missing.value.code == "profile_not_found"
    assert missing.value.request_id
    with pytest.raises(BadRequestError) as unknown:
        await client.chat("Hello", model=model, sterring={})
    assert unknown.value.param == "sterring"
    with pytest.raises(UnprocessableError) as shape:
        await client.directions.create(
            name="short", kind="vector", site="resid_post", layers=[1], tensors={"vector": [1.0]}
        )
    assert shape.value.code == "shape_mismatch"


async def test_keys_and_their_trace(client: AsyncCoxswain) -> None:
    made = await client.keys.create("lab", ["chat"], requests_per_minute=9)
    assert made.secret.startswith("sk-cox-")
    listed = (await client.keys.list()).data
    assert [(key.id, key.requests_per_minute) for key in listed] == [(made.id, 9)]
    assert (await client.keys.revoke(made.id)).revoked_at is not None
    events = (await client.audit.list()).data
    assert [event.sequence for event in events] == sorted(
        (event.sequence for event in events), reverse=True
    )


async def test_it_is_ready(client: AsyncCoxswain) -> None:
    assert await client.is_ready()


class Lossy(httpx.ASGITransport):
    """A proxy that passes a request on and loses the answer, the first time that it comes."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(app)
        self.lost: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.method != "POST" or any(request is lost for lost in self.lost):
            return response
        self.lost.append(request)
        return httpx.Response(502, headers={"retry-after": "0"})


PLACE: dict[str, Any] = {"kind": "vector", "site": "resid_post", "layers": [1]}
ADD: Any = [{"operation": "add", "direction": "cheer", "strength": 0.5}]


async def _ended(client: AsyncCoxswain) -> str:
    """A job that was cancelled."""
    return (await client.jobs.cancel((await client.jobs.list()).data[0].id)).id


async def _upload(client: AsyncCoxswain) -> Any:
    file = save({"vector": torch.ones(8)})
    return await client.directions.upload(file, filename="f.safetensors", name="one", **PLACE)


async def _create(client: AsyncCoxswain) -> Any:
    return await client.directions.create(name="two", tensors={"vector": [2.0] * 8}, **PLACE)


async def _resume(client: AsyncCoxswain) -> Any:
    return await client.jobs.resume(await _ended(client))


async def _rerun(client: AsyncCoxswain) -> Any:
    return await client.jobs.rerun(await _ended(client))


# Each call that makes something, its route, and what it does.
MAKING: dict[str, tuple[str, str, Callable[[AsyncCoxswain], Awaitable[Any]]]] = {
    "upload": ("/v1/steering/directions", "direction.create", _upload),
    "numbers": ("/v1/steering/directions", "direction.create", _create),
    "profile": (
        "/v1/steering/profiles",
        "profile.create",
        lambda client: client.profiles.create("second", ADD),
    ),
    "publish": (
        "/v1/steering/profiles/{name}/publish",
        "profile.publish",
        lambda client: client.profiles.publish("first@1"),
    ),
    "job": (
        "/v1/steering/jobs",
        "job.create",
        lambda client: client.jobs.create("steps", steps=1),
    ),
    "resume": ("/v1/steering/jobs/{job_id}/resume", "job.resume", _resume),
    "rerun": ("/v1/steering/jobs/{job_id}/rerun", "job.create", _rerun),
    "key": ("/v1/admin/keys", "key.create", lambda client: client.keys.create("lab", ["chat"])),
}


@pytest.mark.parametrize("name", MAKING)
async def test_what_is_sent_again_is_done_once(app: FastAPI, name: str) -> None:
    route, action, make = MAKING[name]
    direct = AsyncCoxswain("http://127.0.0.1", transport=httpx.ASGITransport(app))
    await _cheer(direct)
    await direct.profiles.create("first", ADD)
    await direct.jobs.create("steps", steps=1)
    before = [event.sequence for event in (await direct.audit.list(action=action)).data]
    proxy = Lossy(app)
    client = AsyncCoxswain("http://127.0.0.1", transport=proxy)
    if name == "key":
        with pytest.raises(ConflictError) as caught:
            await make(client)
        assert caught.value.code == "idempotency_replayed"
    else:
        assert await make(client)
    assert len(proxy.lost) == 1
    assert proxy.lost[0].headers["idempotency-key"]
    assert compile_path(route)[0].fullmatch(proxy.lost[0].url.path)
    after = [event.sequence for event in (await direct.audit.list(action=action)).data]
    assert len(after) == len(before) + 1


def test_every_route_with_keys_is_called_with_one(app: FastAPI) -> None:
    have = {
        context.path
        for context in iter_route_contexts(app.routes)
        if hasattr(getattr(context.original_route, "endpoint", None), "__wrapped__")
    }
    assert have == {route for route, _, _ in MAKING.values()}
