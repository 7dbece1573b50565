"""Listings in pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import TypeVar

import pytest

from server.store import SYSTEM, Page, Store
from server.store.errors import InvalidCursorError
from steering.errors import InvalidFieldError

from .samples import direction, profile, publish, put

_T = TypeVar("_T")


def walk(
    read: Callable[[str | None], Page[_T]], between: Callable[[], object] = lambda: None
) -> list[_T]:
    items: list[_T] = []
    cursor = None
    while True:
        page = read(cursor)
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items
        between()


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_give_everything_once_in_order(store: Store, limit: int) -> None:
    names = [f"d{index}" for index in range(7)]
    for name in reversed(names):
        put(store, direction(name))
    shown = walk(lambda cursor: store.directions.list(cursor, limit))
    assert [r.name for r in shown] == names


def test_pages_are_stable_while_rows_are_added(store: Store) -> None:
    for name in ("b", "d", "f"):
        publish(store, name)
    added = iter(("a", "g", "c"))
    shown = walk(lambda cursor: store.profiles.list(cursor, 1), lambda: publish(store, next(added)))
    assert [r.name for r in shown] == ["b", "d", "f", "g"]


def test_versions_page_backwards(store: Store) -> None:
    for index in range(5):
        publish(store, "careful", description=str(index))
    shown = walk(
        lambda cursor: store.profiles.versions("careful", cursor, 2),
        lambda: store.profiles.save(profile(description="new"), by=SYSTEM),
    )
    assert [r.version for r in shown] == [5, 4, 3, 2, 1]


def test_the_audit_log_pages_backwards(store: Store) -> None:
    for index in range(5):
        store.audit.append("test", f"thing {index}", by=SYSTEM)
    shown = walk(lambda cursor: store.audit.list(cursor, 2))
    assert [e.sequence for e in shown] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "=",
        "é",
        "a" * 10_000,
        base64.urlsafe_b64encode(b"[" * 20_000).decode(),
        base64.urlsafe_b64encode(b"null").decode(),
        base64.urlsafe_b64encode(b'["x"]').decode(),
        base64.urlsafe_b64encode(b'["x", 1]').decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_a_cursor_nobody_gave_out_is_refused(sqlite_store: Store, cursor: str) -> None:
    with pytest.raises(InvalidCursorError) as caught:
        sqlite_store.directions.list(cursor)
    assert caught.value.param == "cursor"


def test_a_cursor_belongs_to_its_listing(sqlite_store: Store) -> None:
    for name in ("a", "b"):
        put(sqlite_store, direction(name, tags=("t",)))
        publish(sqlite_store, name)
    cursor = sqlite_store.directions.list(limit=1).next_cursor
    with pytest.raises(InvalidCursorError):
        sqlite_store.profiles.list(cursor)
    with pytest.raises(InvalidCursorError):
        sqlite_store.directions.list(cursor, tag="t")
    assert [r.name for r in sqlite_store.directions.list(cursor, limit=9).items] == ["b"]


@pytest.mark.parametrize("key", ["a\0", 3, None, ["a"], True])
def test_a_forged_key_is_refused(sqlite_store: Store, key: object) -> None:
    for name in ("a", "b"):
        put(sqlite_store, direction(name))
    cursor = sqlite_store.directions.list(limit=1).next_cursor or ""
    digest, _ = json.loads(base64.urlsafe_b64decode(cursor))
    forged = base64.urlsafe_b64encode(json.dumps([digest, key]).encode()).decode()
    with pytest.raises(InvalidCursorError):
        sqlite_store.directions.list(forged)


@pytest.mark.parametrize("limit", [0, -1, 201])
def test_the_limit_is_bounded(sqlite_store: Store, limit: int) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        sqlite_store.directions.list(limit=limit)
    assert caught.value.param == "limit"
