"""`Idempotency-Key` on the routes that change something."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from safetensors.numpy import save
from sqlalchemy import select

from server.app import create_app
from server.auth.permissions import LOCAL_USER, Permission
from server.settings import Settings
from server.store import SYSTEM, Store
from server.store.errors import StoreUnavailableError
from server.store.tables import AnswerRow

from .conftest import connect, create_cheerful, make_key, profile, vector
from .echo_engine import EchoEngine

DIRECTIONS = "/v1/steering/directions"
PROFILES = "/v1/steering/profiles"
KEYS = "/v1/admin/keys"
NAMED = {"idempotency-key": "Try-1_a.b"}


def num_changes(store: Store) -> int:
    return store.audit.sequence()


async def test_the_first_answer_is_given_again(client: httpx.AsyncClient, store: Store) -> None:
    first = await client.post(DIRECTIONS, json=vector(), headers=NAMED)
    changes = num_changes(store)
    again = await client.post(DIRECTIONS, json=vector(), headers=NAMED)
    assert first.status_code == again.status_code == 201, "not 200, as without the key"
    assert first.content == again.content
    for name in ("etag", "content-type", "content-length"):
        assert first.headers[name] == again.headers[name]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert num_changes(store) == changes
    assert first.headers["x-request-id"] != again.headers["x-request-id"]


async def test_it_stays_the_answer_though_the_world_moved_on(client: httpx.AsyncClient) -> None:
    await client.post(DIRECTIONS, json=vector())
    first = await client.post(PROFILES, json=profile(), headers=NAMED)
    await client.post(PROFILES, json=profile(description="newer"))
    assert (await client.post(PROFILES, json=profile(), headers=NAMED)).json() == first.json()
    assert (await client.get(f"{PROFILES}/cheerful")).json()["version"] == 2


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (DIRECTIONS, vector("other"), {}),
        (PROFILES, vector(), {}),
        (f"{DIRECTIONS}?x=1", vector(), {}),
        (DIRECTIONS, vector(), {"if-match": '"1"'}),
    ],
    ids=["body", "route", "query", "condition"],
)
async def test_another_request_under_the_key_is_a_conflict(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    await client.post(DIRECTIONS, json=vector(), headers=NAMED)
    response = await client.post(path, json=body, headers={**NAMED, **headers})
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "idempotency_conflict"
    assert response.json()["error"]["param"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "a" * 65, "a b", "a/b", "\xe4"])
async def test_a_key_has_a_form(client: httpx.AsyncClient, key: str) -> None:
    headers = {"idempotency-key": key.encode("latin-1")}
    response = await client.post(DIRECTIONS, json=vector(), headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "Idempotency-Key"
    assert (await client.get(DIRECTIONS)).json()["data"] == []


async def test_two_keys_are_refused(client: httpx.AsyncClient) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    assert (await client.post(DIRECTIONS, json=vector(), headers=headers)).status_code == 400


async def test_a_failed_request_may_be_mended(client: httpx.AsyncClient) -> None:
    bad = await client.post(DIRECTIONS, json=vector(site="nowhere"), headers=NAMED)
    assert bad.status_code == 422
    assert (await client.post(DIRECTIONS, json=vector(), headers=NAMED)).status_code == 201


async def test_forms_are_the_same_whatever_their_boundary(client: httpx.AsyncClient) -> None:
    data = save({"vector": np.ones(8, np.float32)})
    files = {"file": ("x.safetensors", data)}
    metadata = {"metadata": '{"name": "x", "kind": "vector", "site": "resid_post", "layers": [1]}'}
    sent = [
        await client.post(DIRECTIONS, data=metadata, files=files, headers=NAMED) for _ in range(2)
    ]
    assert [response.status_code for response in sent] == [201, 201], sent[0].text
    types = {response.request.headers["content-type"] for response in sent}
    assert len(types) == 2, "the boundaries were equal and nothing was tested"
    assert sent[1].headers["idempotency-replayed"] == "true"


async def test_a_secret_is_neither_kept_nor_shown_again(
    client: httpx.AsyncClient, store: Store
) -> None:
    body = {"name": "ci", "scopes": ["chat"]}
    made = await client.post(KEYS, json=body, headers=NAMED)
    assert made.status_code == 201
    again = await client.post(KEYS, json=body, headers=NAMED)
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "idempotency_replayed"
    assert len(store.keys.list().items) == 1
    with store.database.reading() as session:
        row = session.scalars(select(AnswerRow)).one()
    assert row.body is None
    secret = made.json()["secret"]
    assert secret not in str(row.headers) + row.request


async def test_callers_have_keys_of_their_own_and_lose_them_with_their_rights(
    settings: Settings, engine: EchoEngine, store: Store
) -> None:
    one, two = (make_key(store, Permission.ADMIN) for _ in range(2))
    reader = make_key(store, Permission.READ)
    sealed = create_app(settings, engine, store)  # type: ignore[arg-type]
    async with connect(sealed, one) as first, connect(sealed, two) as second:
        made = await first.post(DIRECTIONS, json=vector("mine"), headers=NAMED)
        assert made.status_code == 201
        other = await second.post(DIRECTIONS, json=vector("yours"), headers=NAMED)
        assert other.status_code == 201
        services = sealed.state.services
        await services.keys.revoke(one.split("-")[2], revoker=LOCAL_USER, by=SYSTEM)
        gone = await first.post(DIRECTIONS, json=vector("mine"), headers=NAMED)
        assert gone.status_code == 401
    async with connect(sealed, reader) as third:
        refused = await third.post(DIRECTIONS, json=vector("mine"), headers=NAMED)
        assert refused.status_code == 403


async def test_of_two_at_once_one_is_done(
    client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, finish = threading.Event(), threading.Event()
    put = store.blobs.put

    def slow(content: bytes) -> str:
        entered.set()
        assert finish.wait(30)
        return put(content)

    monkeypatch.setattr(store.blobs, "put", slow)
    first = asyncio.create_task(client.post(DIRECTIONS, json=vector(), headers=NAMED))
    await asyncio.to_thread(entered.wait, 30)
    second = await client.post(DIRECTIONS, json=vector(), headers=NAMED)
    assert (second.status_code, second.headers["retry-after"]) == (409, "1")
    assert second.json()["error"]["code"] == "idempotency_in_progress"
    finish.set()
    assert (await first).status_code == 201
    third = await client.post(DIRECTIONS, json=vector(), headers=NAMED)
    assert third.content == (await first).content


async def test_an_answer_that_cannot_be_kept_is_given_anyway(
    client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    def broken(*_: Any) -> None:
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(type(store.idempotency), "keep", broken)
    response = await client.post(DIRECTIONS, json=vector(), headers=NAMED)
    assert response.status_code == 201
    assert "idempotency_key_unsettled" in [entry["event"] for entry in logs]
    again = await client.post(DIRECTIONS, json=vector(), headers=NAMED)
    assert again.json()["error"]["code"] == "idempotency_in_progress"


async def test_a_request_that_failed_with_the_store_may_be_sent_again_when_it_is_back(
    client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither done nor released: of those who then send it again at once, one does it."""

    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("gone")

    for index in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(type(store.directions), "put", away)
            patched.setattr(type(store.idempotency), "release", away)
            failed = await client.post(DIRECTIONS, json=vector(), headers=NAMED)
            assert failed.status_code == 503, index
    sent = (client.post(DIRECTIONS, json=vector(), headers=NAMED) for _ in range(5))
    statuses = {answer.status_code for answer in await asyncio.gather(*sent)}
    assert 201 in statuses
    assert statuses <= {201, 409}
    assert num_changes(store) == 1


async def test_publishing_is_done_once(client: httpx.AsyncClient, store: Store) -> None:
    await create_cheerful(client)
    await client.post(PROFILES, json=profile(publish=False, description="draft"))
    path = f"{PROFILES}/cheerful/publish"
    first = await client.post(path, headers=NAMED)
    await client.post(PROFILES, json=profile(publish=False, description="later"))
    again = await client.post(path, headers=NAMED)
    assert first.status_code == 200, first.text
    assert again.json() == first.json()
    later = (await client.get(f"{PROFILES}/cheerful@3")).json()
    assert later["status"] == "draft", "a second publish would have published it"


async def test_bodies_stay_bounded(client: httpx.AsyncClient) -> None:
    text = base64.b64encode(bytes(2 * 2**20)).decode()
    response = await client.post(DIRECTIONS, json=vector(tensors=text), headers=NAMED)
    assert response.status_code == 413


def test_every_route_that_makes_something_has_it(app: FastAPI) -> None:
    """POST routes that only answer do without: analyses, generation, validation."""
    have = {
        context.path
        for context in iter_route_contexts(app.routes)
        if isinstance(context.original_route, APIRoute)
        and hasattr(context.original_route.endpoint, "__wrapped__")
    }
    assert have == {
        DIRECTIONS,
        PROFILES,
        f"{PROFILES}/{{name}}/publish",
        KEYS,
        *(f"/v1/steering/jobs{rest}" for rest in ("", "/{job_id}/resume", "/{job_id}/rerun")),
    }
