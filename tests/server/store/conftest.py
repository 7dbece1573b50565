"""Stores on every database the server supports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL

from server.store import Store

from . import postgres, samples
from .uploading import Uploader


class Clock:
    """A wall clock that a test sets; every reading is a second later than the last."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgres.Cluster]:
    reason = postgres.missing()
    if reason is not None:
        pytest.skip(reason)
    running = postgres.Cluster()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def uploader() -> Iterator[Uploader]:
    running = Uploader()
    yield running
    running.stop()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    return URL.create("sqlite", database=str(tmp_path / "store.db"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> URL:
    if request.param == "sqlite":
        found: URL = request.getfixturevalue("sqlite_url")
        return found
    database: URL = request.getfixturevalue("cluster").shared_database()
    return database


@pytest.fixture
def store(url: URL, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """A store on each database in turn."""
    opened = Store.open(tmp_path, url, load=samples.load, low_water_bytes=0, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(sqlite_url: URL, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """A store for what does not depend on the database."""
    opened = Store.open(tmp_path, sqlite_url, load=samples.load, low_water_bytes=0, clock=clock)
    yield opened
    opened.close()
