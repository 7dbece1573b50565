"""A request is parsed once: what is read when it arrives is what its run receives."""

from __future__ import annotations

from typing import Any

import pytest

from server.auth.permissions import LOCAL_USER
from server.jobs import runner
from server.jobs.manager import JobManager
from server.registry.upload import Uploader
from server.store import SYSTEM, Actor, JobRecord, Store
from tests.server.api.echo_engine import EchoEngine

from .conftest import MakeManager
from .fake_kinds import Steps, made_direction

BY = Actor("abcd1234", "request-1")


async def ask(manager: JobManager, **request: Any) -> JobRecord:
    return await manager.create("steps", {"steps": 3, **request}, caller=LOCAL_USER, by=BY)


async def result(manager: JobManager, job: JobRecord) -> Any:
    """Of a job that runs now, or has run."""
    _ = [event async for event in manager.follow(job.id)]
    return (await manager.get(job.id)).result


def upload(store: Store, value: float) -> None:
    Uploader(store, EchoEngine().info().spec).from_direction(
        made_direction("used", value), by=SYSTEM
    )


async def test_what_was_read_is_handed_to_the_run(
    make_manager: MakeManager, job_store: Store, steps: Steps
) -> None:
    upload(job_store, 1.0)
    manager = make_manager()
    waiting = [await ask(manager, use=use) for use in ("used", "used@1")]
    await manager.start()
    assert [(await result(manager, job))["used"] for job in waiting] == ["used@1"] * 2
    assert steps.num_parsed == 2


async def test_a_name_that_means_another_direction_by_then_is_read_again(
    make_manager: MakeManager, job_store: Store, steps: Steps
) -> None:
    upload(job_store, 1.0)
    manager = make_manager()
    named, pinned = [await ask(manager, use=use) for use in ("used", "used@1")]
    upload(job_store, 2.0)
    await manager.start()
    assert (await result(manager, named))["used"] == "used@2"
    assert (await result(manager, pinned))["used"] == "used@1"
    assert steps.num_parsed == 3


async def test_a_direction_that_has_gone_by_then_fails_the_job_as_ever(
    make_manager: MakeManager, job_store: Store
) -> None:
    upload(job_store, 1.0)
    manager = make_manager()
    job = await ask(manager, use="used@1")
    job_store.directions.archive("used", 1, by=SYSTEM)
    await manager.start()
    assert await result(manager, job) is None
    error = (await manager.get(job.id)).error
    assert error is not None
    assert error["error"]["param"] == "use"


async def test_another_server_reads_what_is_stored(make_manager: MakeManager, steps: Steps) -> None:
    asked = await ask(make_manager())
    other = make_manager()
    await other.start()
    assert await result(other, asked) == {"total": 3}
    assert steps.num_parsed == 2


async def test_a_resumed_job_is_read_again(make_manager: MakeManager, steps: Steps) -> None:
    manager = make_manager()
    job = await ask(manager)
    await manager.cancel(job.id, by=BY)
    await manager.resume(job.id, caller=LOCAL_USER, by=BY)
    await manager.start()
    assert await result(manager, job) == {"total": 3}
    assert steps.num_parsed == 2


async def test_what_is_too_long_to_keep_is_read_again(
    make_manager: MakeManager, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_MAX_PARSED_BYTES", 30)
    manager = make_manager()
    jobs = [await ask(manager), await ask(manager, error="never raised, but long")]
    await manager.start()
    assert [(await result(manager, job)) is not None for job in jobs] == [True, True]
    assert steps.num_parsed == 3
