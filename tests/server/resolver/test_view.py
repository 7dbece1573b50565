"""Names are looked up once while nothing changes, and anew as soon as something does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from server.auth.permissions import Permission
from server.resolver.library import DirectionLibrary, load_direction_blob
from server.resolver.lru import LruCache
from server.resolver.view import NotKnownError, RegistryView, RegistryViews
from server.store import SYSTEM, Store
from server.store.errors import DirectionNotFoundError, ProfileNotFoundError
from steering.documents import DirectionRef
from tests.server.api.conftest import make_key
from tests.server.store.samples import direction, profile, put

REFUSAL = DirectionRef("refusal")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path, load=load_direction_blob, low_water_bytes=0)
    put(opened, direction("refusal"))
    save(opened, "calm")
    yield opened
    opened.close()


@pytest.fixture
def views(store: Store) -> RegistryViews:
    return RegistryViews(store, DirectionLibrary(store))


def save(store: Store, name: str, **changes: Any) -> None:
    store.profiles.save(
        profile(name, "refusal", **changes), by=SYSTEM, resid_norms={}, publish=True
    )


def look(view: RegistryView) -> tuple[str, str]:
    return view.profile("calm").reference, view.direction(REFUSAL).reference


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(statement)

    bind = store.database._engine
    event.listen(bind, "before_cursor_execute", note)
    yield seen
    event.remove(bind, "before_cursor_execute", note)


def test_while_nothing_changes_a_request_costs_one_query(
    store: Store, views: RegistryViews
) -> None:
    assert look(views.now()) == ("calm@1", "refusal@1")
    with statements(store) as seen:
        for _ in range(5):
            assert look(views.now()) == ("calm@1", "refusal@1")
    assert len([text for text in seen if text.startswith("SELECT")]) == 5


def test_a_change_is_seen_by_the_next_request(store: Store, views: RegistryViews) -> None:
    before = views.now()
    assert look(before) == ("calm@1", "refusal@1")
    save(store, "calm", description="calmer")
    put(store, direction("refusal", layers=(3,)))
    assert look(before) == ("calm@1", "refusal@1"), "a request keeps what it began with"
    assert look(views.now()) == ("calm@2", "refusal@2")


def test_a_change_of_another_process_is_seen(
    store: Store, views: RegistryViews, tmp_path: Path
) -> None:
    assert look(views.now())[0] == "calm@1"
    other = Store.open(tmp_path, load=load_direction_blob, low_water_bytes=0)
    save(other, "calm", description="calmer")
    other.close()
    assert look(views.now())[0] == "calm@2"


def test_what_is_not_there_is_asked_for_again(store: Store, views: RegistryViews) -> None:
    view = views.now()
    with pytest.raises(ProfileNotFoundError):
        view.profile("wild")
    with pytest.raises(DirectionNotFoundError):
        view.direction(DirectionRef("wild"))
    save(store, "wild")
    assert view.profile("wild").reference == "wild@1"


def test_archived_directions_stay_with_those_who_pinned_them(
    store: Store, views: RegistryViews
) -> None:
    put(store, direction("lonely"))
    pinned = DirectionRef("lonely", 1)
    assert views.now().direction(pinned).reference == "lonely@1"
    store.directions.archive("lonely", by=SYSTEM)
    view = views.now()
    assert view.direction(pinned, include_archived=True).reference == "lonely@1"
    with pytest.raises(DirectionNotFoundError):
        view.direction(pinned)


def test_a_use_is_no_change(store: Store, views: RegistryViews) -> None:
    before = views.now()
    store.audit.append("steering.restricted_use", "profile calm@1", by=SYSTEM)
    make_key(store, Permission.CHAT)
    assert views.now() is before


def test_what_is_remembered_asks_nothing(store: Store, views: RegistryViews) -> None:
    view = views.now()
    with pytest.raises(NotKnownError):
        view.remembered().profile("calm")
    with pytest.raises(NotKnownError):
        view.remembered().direction(REFUSAL)
    expected = look(view)
    with statements(store) as seen:
        assert look(view.remembered()) == expected
    assert seen == []


class Sized(int):
    """A value as heavy as its number."""


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), max_size=60))
def test_a_cache_keeps_what_was_used_last_of_what_it_can_hold(
    uses: list[tuple[int, int]],
) -> None:
    """Against a list; a value over the limit is given, not kept, and costs nobody else's place."""
    limit = 10
    cache: LruCache[int, Sized] = LruCache(limit, int)
    kept: list[tuple[int, Sized]] = []  # least lately used first
    for key, weight in uses:
        found = [value for name, value in kept if name == key]
        value = cache.get_or(key, lambda weight=weight: Sized(weight))
        assert value == (found[0] if found else weight)
        if not found and weight > limit:
            continue
        kept = [pair for pair in kept if pair[0] != key] + [(key, value)]
        while sum(size for _, size in kept) > limit:
            kept.pop(0)
        for name in range(6):
            held = [value for other, value in kept if other == name]
            assert copy(cache._values).get(name) == (held[0] if held else None)
