"""Servers that stop, die and start again while jobs wait and run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from server.auth.permissions import LOCAL_USER, Permission, PermissionDeniedError, Principal
from server.engine.errors import EngineDrainingError
from server.jobs.manager import JobManager
from server.resolver.library import load_direction_blob
from server.store import SYSTEM, JobRecord, JobRuns, JobSpec, JobStatus, Store
from server.store.errors import JobActiveError, JobFinishedError, StoreUnavailableError
from steering.errors import IncompatibleModelError

from .conftest import MakeManager, Observed, until
from .fake_kinds import Steps

ADMIN = Principal("abcd1234", "admin", frozenset({Permission.ADMIN}))


async def ask(manager: JobManager, **request: Any) -> JobRecord:
    return await manager.create("steps", {"steps": 4, **request}, caller=LOCAL_USER, by=SYSTEM)


async def ended(manager: JobManager, job_id: str) -> JobRecord:
    async for _ in manager.follow(job_id):
        pass
    return await manager.get(job_id)


async def test_stopping_interrupts_and_resuming_goes_on_where_it_was(
    make_manager: MakeManager, steps: Steps, observed: Observed
) -> None:
    first = make_manager()
    await first.start()
    job = await ask(first, stop_at=2)
    await steps.arrived.wait()
    await first.stop()
    stopped = await first.get(job.id)
    assert (stopped.status, stopped.attempts) == (JobStatus.INTERRUPTED, 1)
    assert steps.ended == ["CancelledError"]
    assert observed.ended == [("steps", "interrupted", True)]
    second = make_manager()
    await second.start()
    steps.go.set()
    resumed = await second.resume(job.id, caller=LOCAL_USER, by=SYSTEM)
    assert (resumed.status, resumed.id) == (JobStatus.QUEUED, job.id)
    done = await ended(second, job.id)
    assert (done.status, done.attempts) == (JobStatus.SUCCEEDED, 2)
    assert steps.done == [0, 1, 2, 3], "each step once"
    statuses = [event.status.value async for event in second.follow(job.id)]
    assert [s for i, s in enumerate(statuses) if s != statuses[i - 1]] == [
        *("queued", "running", "interrupted", "queued", "running", "succeeded")
    ]


async def test_what_waits_when_a_server_stops_runs_with_the_next(
    make_manager: MakeManager, steps: Steps
) -> None:
    first = make_manager()
    await first.start()
    await ask(first, stop_at=0)
    await steps.arrived.wait()
    waiting = await ask(first)
    watching = asyncio.create_task(ended(first, waiting.id))
    await asyncio.sleep(0)
    await first.stop()
    with pytest.raises(EngineDrainingError, match="stays in the queue"):
        await watching
    second = make_manager()
    await second.start()
    assert (await ended(second, waiting.id)).status is JobStatus.SUCCEEDED


async def test_what_a_dead_server_left_running_is_interrupted(
    make_manager: MakeManager, job_store: Store, tmp_path: Path
) -> None:
    dead = JobRuns(job_store.database, job_store.clock, "dead")
    spec = JobSpec("steps", {"steps": 4}, "f" * 64)
    job_store.jobs.create(spec, by=SYSTEM, max_queued=9)
    claimed = dead.claim("f" * 64, ["steps"])
    assert claimed is not None
    dead.remember(claimed.job.id, "step", 3)
    job_store.close()
    reopened = Store.open(tmp_path / "data", load=load_direction_blob, low_water_bytes=0)
    manager = make_manager(reopened)
    await manager.start()
    left = await manager.get(claimed.job.id)
    assert (left.status, left.finished_at is None) == (JobStatus.INTERRUPTED, False)
    await manager.resume(claimed.job.id, caller=LOCAL_USER, by=SYSTEM)
    assert (await ended(manager, claimed.job.id)).result == {"total": 3}
    await manager.stop()
    reopened.close()


async def test_a_server_that_lost_a_job_ends_it(
    make_manager: MakeManager,
    steps: Steps,
    job_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another server took it for dead, and has done it already."""
    manager = make_manager()
    await manager.start()
    job = await ask(manager, stop_at=1)
    await steps.arrived.wait()
    monkeypatch.setattr(JobRuns, "beat", lambda _: frozenset({job.id}))  # it notices nothing yet
    other = JobRuns(job_store.database, job_store.clock, "other")
    await asyncio.to_thread(other.interrupt_abandoned, None)
    await asyncio.to_thread(job_store.jobs.resume, job.id, by=SYSTEM, max_queued=9)
    assert await asyncio.to_thread(other.claim, "f" * 64, ["steps"]) is not None
    await asyncio.to_thread(other.succeed, job.id, {"total": "other"})
    monkeypatch.undo()
    await until(lambda: steps.ended == ["CancelledError"])
    assert (await ended(manager, job.id)).result == {"total": "other"}


async def test_an_attempt_that_was_taken_for_dead_makes_way_for_the_next(
    make_manager: MakeManager, steps: Steps, job_store: Store
) -> None:
    """The same server, with room for two jobs, begins it again beside the first attempt."""
    manager = make_manager(max_running=2)
    await manager.start()
    job = await ask(manager, stop_at=1)
    await steps.arrived.wait()
    other = JobRuns(job_store.database, job_store.clock, "other")
    await asyncio.to_thread(other.interrupt_abandoned, None)
    await manager.resume(job.id, caller=LOCAL_USER, by=SYSTEM)
    await until(lambda: steps.ended == ["CancelledError"])
    steps.go.set()
    done = await ended(manager, job.id)
    assert (done.status, done.attempts) == (JobStatus.SUCCEEDED, 2)
    assert steps.done == [0, 1, 2, 3], "each step once"


async def test_rerunning_is_a_new_job_with_the_same_request(
    manager: JobManager, job_store: Store
) -> None:
    job = await ask(manager, requires=["restricted"])
    await ended(manager, job.id)
    again = await manager.rerun(job.id, caller=LOCAL_USER, by=SYSTEM)
    assert again.id != job.id
    assert (again.kind, again.requires, again.rerun_of) == (job.kind, job.requires, job.id)
    requests = [job_store.jobs.request(each.id) for each in (job, again)]
    assert requests[0] == requests[1]
    assert (await ended(manager, again.id)).status is JobStatus.SUCCEEDED
    with pytest.raises(PermissionDeniedError):
        await manager.rerun(job.id, caller=ADMIN, by=SYSTEM)
    with pytest.raises(JobFinishedError):
        await manager.resume(job.id, caller=LOCAL_USER, by=SYSTEM)


async def test_only_the_holder_of_its_scopes_resumes_a_job(
    manager: JobManager, steps: Steps
) -> None:
    job = await ask(manager, requires=["restricted"], stop_at=0)
    await steps.arrived.wait()
    with pytest.raises(JobActiveError):
        await manager.resume(job.id, caller=LOCAL_USER, by=SYSTEM)
    await manager.cancel(job.id, by=SYSTEM)
    with pytest.raises(PermissionDeniedError):
        await manager.resume(job.id, caller=ADMIN, by=SYSTEM)


async def test_a_job_of_another_model_waits_and_does_not_resume(
    manager: JobManager, job_store: Store, steps: Steps
) -> None:
    spec = JobSpec("steps", {"steps": 1}, "another model")
    job = job_store.jobs.create(spec, by=SYSTEM, max_queued=9)
    await ended(manager, (await ask(manager)).id)
    assert (await manager.get(job.id)).status is JobStatus.QUEUED
    await manager.cancel(job.id, by=SYSTEM)
    with pytest.raises(IncompatibleModelError, match="rerun"):
        await manager.resume(job.id, caller=LOCAL_USER, by=SYSTEM)


async def test_a_store_that_is_away_at_the_start_does_not_stop_the_server(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, faults = JobRuns.claim, [StoreUnavailableError("away")] * 3

    def away(*_: Any) -> None:
        raise StoreUnavailableError("away")

    def faulty(self: JobRuns, *arguments: Any) -> JobRecord | None:
        if faults:
            raise faults.pop()
        return real(self, *arguments)

    monkeypatch.setattr(JobRuns, "interrupt_abandoned", away)
    monkeypatch.setattr(JobRuns, "claim", faulty)
    manager = make_manager()
    await manager.start()
    assert (await ended(manager, (await ask(manager)).id)).status is JobStatus.SUCCEEDED
