"""Many writers at once: versions without gaps or doubles, one winner per condition."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from server.store import SYSTEM, Store
from server.store.errors import InUseError, NotFoundError, PreconditionFailedError, StoreError

from .samples import direction, profile, publish, put
from .uploading import Uploader


def together(calls: Sequence[Callable[[], object]]) -> list[Any]:
    """Run every call in a thread of its own, all at one moment; their results or store errors."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except StoreError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_threads_upload_under_one_name(store: Store) -> None:
    saved = together([partial(put, store, direction(seed=n % 5)) for n in range(10)])
    created = Counter(item.record.digest for item in saved if item.created)
    assert list(created.values()) == [1] * 5
    records = store.directions.versions("refusal").items
    assert [r.version for r in records] == [5, 4, 3, 2, 1]
    assert len({r.digest for r in records}) == 5
    assert store.audit.verify() == 5


def test_threads_save_profiles_under_one_name(store: Store) -> None:
    saved = together(
        [partial(store.profiles.save, profile(description=str(n)), by=SYSTEM) for n in range(8)]
    )
    assert sorted(item.record.version for item in saved) == list(range(1, 9))
    assert store.profiles.get("careful", 8).etag == "8"


def test_one_of_several_writers_meets_the_condition(store: Store) -> None:
    seen = publish(store).etag
    results = together(
        [
            partial(store.profiles.save, profile(description=str(n)), by=SYSTEM, expected=seen)
            for n in range(6)
        ]
    )
    kinds = Counter(type(result) for result in results)
    assert kinds[PreconditionFailedError] == 5
    assert len(store.profiles.versions("careful").items) == 2


def test_a_direction_is_archived_or_used_but_not_both(store: Store) -> None:
    for number in range(6):
        name = f"d{number}"
        put(store, direction(name))
        archived, saved = together(
            [
                partial(store.directions.archive, name, by=SYSTEM),
                partial(publish, store, f"p-{name}", name),
            ]
        )
        assert isinstance(archived, InUseError) != isinstance(saved, NotFoundError)


def test_an_alias_and_a_profile_race_for_a_name(store: Store) -> None:
    publish(store, "careful")
    for number in range(6):
        name = f"n{number}"
        alias, made = together(
            [
                partial(store.aliases.put, name, "careful", by=SYSTEM),
                partial(publish, store, name),
            ]
        )
        assert isinstance(alias, StoreError) != isinstance(made, StoreError)


def test_processes_upload_under_one_name(uploader: Uploader, url: URL, tmp_path: Path) -> None:
    uploader.race(tmp_path, url.render_as_string(hide_password=False), "refusal", 12)
    assert uploader.ended() == [0, 0]
    store = Store.open(tmp_path, url, low_water_bytes=0)
    records = store.directions.versions("refusal", limit=50).items
    assert [r.version for r in records] == list(range(12, 0, -1))
    assert len({r.digest for r in records}) == 12
    assert store.audit.verify() == 12
    store.close()
