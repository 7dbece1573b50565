"""Keys known for a while: what that spares, how long it lasts, and what ends it at once."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.api.key_gate import KeyGate
from server.auth.permissions import LOCAL_USER, AuthenticationError, Permission
from server.last_known import DEFAULT_TERMS
from server.pools import Pools
from server.store import SYSTEM, KeyRecord, Store
from server.store.errors import InsufficientStorageError, StoreUnavailableError

from .conftest import make_key

_CONTAINERS = (dict, list, tuple, set, OrderedDict)


class Asked:
    """What is asked of the store of keys; it may be away, or not answer before it is told to."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.is_up = True
        self.began = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self._ask = store.keys.authenticate
        monkeypatch.setattr(type(store.keys), "authenticate", lambda _, token: self(token))

    def __call__(self, token: bytes) -> KeyRecord:
        self.count += 1
        if not self.is_up:
            raise StoreUnavailableError("away")
        found = self._ask(token)
        self.began.set()
        self.go.wait()
        return found


@pytest.fixture
def asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(store, monkeypatch)


@pytest.fixture
def seconds() -> list[float]:
    return [1000.0]


@pytest.fixture
def gate(store: Store, seconds: list[float]) -> KeyGate:
    return KeyGate(store.keys, Pools.open(), is_open=False, clock=lambda: seconds[0])


def bearer(secret: str) -> bytes:
    return f"Bearer {secret}".encode()


async def test_a_key_is_asked_for_once_in_a_while(
    store: Store, gate: KeyGate, asked: Asked, seconds: list[float]
) -> None:
    key = bearer(make_key(store, Permission.CHAT))
    first, _ = await gate.admit(key)
    for _ in range(5):
        assert (await gate.admit(key))[0] == first
    assert asked.count == 1
    seconds[0] += DEFAULT_TERMS.fresh
    await gate.admit(key)
    assert asked.count == 2


async def test_what_is_no_key_is_asked_for_every_time(
    store: Store, gate: KeyGate, asked: Asked
) -> None:
    secret = make_key(store, Permission.CHAT)
    wrong = bearer(secret[:-1] + ("a" if secret[-1] != "a" else "b"))
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            await gate.admit(wrong)
    assert asked.count == 3


async def test_revoking_here_ends_a_key_at_once_whatever_is_under_way(
    store: Store, gate: KeyGate, asked: Asked, seconds: list[float]
) -> None:
    secret = make_key(store, Permission.CHAT)
    admitted = (await gate.admit(bearer(secret)))[0]
    assert admitted.key_id is not None
    seconds[0] += DEFAULT_TERMS.fresh
    asked.go.clear()
    asked.began.clear()
    under_way = asyncio.create_task(gate.admit(bearer(secret)))
    while not asked.began.is_set():  # noqa: ASYNC110  # a thread tells it, not a task
        await asyncio.sleep(0)
    await gate.revoke(admitted.key_id, revoker=LOCAL_USER, by=SYSTEM)
    asked.go.set()
    await asyncio.wait({under_way})
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            await gate.admit(bearer(secret))


async def test_another_server_knows_a_revoked_key_no_longer_than_it_is_fresh(
    store: Store, gate: KeyGate, seconds: list[float], tmp_path: Path
) -> None:
    secret = make_key(store, Permission.CHAT)
    admitted = (await gate.admit(bearer(secret)))[0]
    assert admitted.key_id is not None
    other = Store.open(tmp_path / "data")
    other.keys.revoke(admitted.key_id, revoker=LOCAL_USER, by=SYSTEM)
    other.close()
    await gate.admit(bearer(secret))
    seconds[0] += DEFAULT_TERMS.fresh
    with pytest.raises(AuthenticationError):
        await gate.admit(bearer(secret))


async def test_while_the_store_is_away_a_known_key_works_for_a_time(
    store: Store, gate: KeyGate, asked: Asked, seconds: list[float]
) -> None:
    known, unknown = (bearer(make_key(store, Permission.CHAT)) for _ in range(2))
    admitted, _ = await gate.admit(known)
    asked.is_up = False
    seconds[0] += DEFAULT_TERMS.stale - 1
    assert (await gate.admit(known))[0] == admitted
    with pytest.raises(StoreUnavailableError):
        await gate.admit(unknown)
    seconds[0] += 1
    with pytest.raises(StoreUnavailableError):
        await gate.admit(known)
    asked.is_up = True
    assert (await gate.admit(known))[0] == admitted


async def test_a_key_that_has_expired_is_refused_though_it_is_known(
    store: Store, gate: KeyGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = store.clock()
    key = bearer(make_key(store, Permission.CHAT, expires_at=now + timedelta(minutes=1)))
    await gate.admit(key)
    monkeypatch.setattr(store.keys, "_clock", lambda: now + timedelta(minutes=2))
    with pytest.raises(AuthenticationError):
        await gate.admit(key)


async def test_no_key_is_kept_in_clear(store: Store, gate: KeyGate) -> None:
    secret = make_key(store, Permission.CHAT)
    await gate.admit(bearer(secret))
    needle = secret.split("-")[3].encode()
    seen: set[int] = set()
    todo: list[Any] = [gate]
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        text = value.encode() if isinstance(value, str) else value
        assert not isinstance(text, bytes | bytearray) or needle not in text
        # Inside what the server holds, not all of Python.
        if type(value).__module__.startswith("server.") or type(value) in _CONTAINERS:
            todo += gc.get_referents(value)
    assert len(seen) > 50


async def test_use_is_written_once_a_minute_and_waited_for_by_nobody(
    store: Store, gate: KeyGate, seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[set[str]] = []
    began, go = threading.Event(), threading.Event()

    def note(ids: set[str]) -> None:
        written.append(set(ids))
        began.set()
        go.wait()

    monkeypatch.setattr(store.keys, "note_use", note)
    keys = [bearer(make_key(store, Permission.CHAT)) for _ in range(3)]
    for key in keys * 2:
        await gate.admit(key)
    go.set()
    assert gate._noting is not None
    await gate._noting
    assert sorted(id_ for ids in written for id_ in ids) == sorted(
        record.id for record in store.keys.list().items
    )
    written.clear()
    seconds[0] += 59
    await gate.admit(keys[0])
    assert gate._noting.done()
    seconds[0] += 1
    await gate.admit(keys[0])
    await gate._noting
    assert len(written) == 1


async def test_a_full_disk_does_not_refuse_a_key(
    store: Store, gate: KeyGate, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    secret = make_key(store, Permission.CHAT)

    def full(_work: object) -> None:
        raise InsufficientStorageError("full")

    monkeypatch.setattr(store.database, "write", full)
    await gate.admit(bearer(secret))
    assert gate._noting is not None
    await gate._noting
    assert [entry["event"] for entry in logs] == ["key_use_not_recorded"]
    assert secret not in repr(logs)
