"""Managers of jobs over the echo engine and a store of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server.api.http.error_table import reply_to
from server.engine.async_engine import AsyncEngine
from server.engine.engine import EngineConfig
from server.jobs.manager import JobLimits, JobManager
from server.jobs.runner import JobTimes
from server.models import EMBEDDED_MODEL
from server.pools import Pools
from server.registry.upload import Uploader
from server.resolver.library import DirectionLibrary, load_direction_blob
from server.store import Store
from tests.server.api.echo_engine import EchoEngine

from .fake_kinds import Steps

TIMES = JobTimes(tick=0.01, beat=0.02, silence=30.0, stop=5.0)


@dataclass
class Observed:
    """What the metrics would be told."""

    ended: list[tuple[str, str, bool]] = field(default_factory=list)
    counts: tuple[int, int] = (0, 0)

    def job_ended(self, kind: str, status: str, seconds: float | None) -> None:
        self.ended.append((kind, status, seconds is not None))

    def jobs_counted(self, num_running: int, num_queued: int) -> None:
        self.counts = (num_running, num_queued)


@pytest.fixture
def job_store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data", load=load_direction_blob, low_water_bytes=0)
    yield opened
    opened.close()


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture(scope="module")
def embedded() -> Iterator[AsyncEngine]:
    """A real engine over the embedded model."""
    checkpoint = EMBEDDED_MODEL
    engine = AsyncEngine.start(EngineConfig(str(checkpoint), device="cpu", num_threads=1))
    yield engine
    engine.close()


MakeManager = Callable[..., JobManager]


@pytest.fixture
async def make_manager(
    job_store: Store, steps: Steps, observed: Observed
) -> AsyncIterator[MakeManager]:
    """Makes managers as servers one after the other would have them; all are stopped at the end."""
    made: list[JobManager] = []

    def make(store: Store = job_store, **limits: int) -> JobManager:
        engine = EchoEngine()
        manager = JobManager(
            [steps.kind],
            engine,  # type: ignore[arg-type]
            store,
            uploader=Uploader(store, engine.info().spec),
            library=DirectionLibrary(store),
            pools=Pools.open(),
            limits=JobLimits(**limits),
            describe=lambda error: reply_to(error, "/v1/steering/jobs").body(),
            observer=observed,
            times=TIMES,
        )
        made.append(manager)
        return manager

    yield make
    for manager in made:
        await manager.stop()


@pytest.fixture
async def manager(make_manager: MakeManager) -> JobManager:
    started = make_manager()
    await started.start()
    return started


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # what is waited for tells nobody
        await asyncio.sleep(0)
