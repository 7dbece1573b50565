"""Jobs from being asked for to their end: order, bounds, failures, cancelling."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from server.auth.permissions import LOCAL_USER, Permission, PermissionDeniedError, Principal
from server.engine.errors import EngineDeadError, NonFiniteOutputError
from server.jobs.manager import JobManager
from server.registry.upload import Uploader
from server.resolver.library import DirectionLibrary
from server.store import SYSTEM, Actor, JobEvent, JobRecord, JobRuns, JobStatus, Store
from server.store.errors import (
    DirectionNotFoundError,
    InsufficientStorageError,
    JobFinishedError,
    JobQueueFullError,
    StoreUnavailableError,
)
from steering.documents import DirectionRef
from steering.errors import InvalidFieldError, ZeroVectorError
from tests.server.api.echo_engine import EchoEngine

from .conftest import MakeManager, Observed, until
from .fake_kinds import Steps, made_direction

ADMIN = Principal("abcd1234", "admin", frozenset({Permission.ADMIN}))
BY = Actor("abcd1234", "request-1")
SPEC = EchoEngine().info().spec


async def ask(manager: JobManager, caller: Principal = LOCAL_USER, **request: Any) -> JobRecord:
    return await manager.create("steps", {"steps": 3, **request}, caller=caller, by=BY)


async def ended(manager: JobManager, job: JobRecord) -> JobRecord:
    """The job when nothing more happens to it."""
    _ = await followed(manager, job)
    return await manager.get(job.id)


async def followed(manager: JobManager, job: JobRecord, after: int = 0) -> list[JobEvent]:
    return [event async for event in manager.follow(job.id, after)]


async def test_a_job_runs_to_its_result(
    manager: JobManager, steps: Steps, observed: Observed
) -> None:
    job = await ask(manager)
    done = await ended(manager, job)
    assert (done.status, done.result, done.fraction) == (JobStatus.SUCCEEDED, {"total": 3}, 1.0)
    assert steps.done == [0, 1, 2]
    await until(lambda: observed.ended == [("steps", "succeeded", True)])
    await until(lambda: observed.counts == (0, 0))


async def test_every_event_can_be_read_again(manager: JobManager) -> None:
    job = await ask(manager)
    events = await followed(manager, job)
    assert [e.number for e in events] == list(range(1, len(events) + 1))
    assert [e.status.value for e in events[:2]] == ["queued", "running"]
    assert events[-1].status is JobStatus.SUCCEEDED
    fractions = [e.fraction for e in events]
    assert fractions == sorted(fractions)
    assert await followed(manager, job, after=2) == events[2:]
    assert await followed(manager, job, after=len(events)) == []


async def test_a_report_that_came_too_soon_is_stored_with_the_next_tick(
    manager: JobManager, steps: Steps
) -> None:
    job = await ask(manager, stop_at=2)
    async for event in manager.follow(job.id):
        if event.message == "step 2":  # reported right after step 1, within its second
            break
    steps.go.set()


async def test_jobs_run_in_order_and_within_the_bound(
    make_manager: MakeManager, steps: Steps, observed: Observed
) -> None:
    manager = make_manager(max_running=1, max_queued=2)
    await manager.start()
    first = await ask(manager, stop_at=0)
    await steps.arrived.wait()
    waiting = [await ask(manager) for _ in range(2)]
    await until(lambda: observed.counts == (1, 2))
    with pytest.raises(JobQueueFullError):
        await ask(manager)
    assert [(await manager.get(j.id)).status.value for j in waiting] == ["queued"] * 2
    steps.go.set()
    ends = [(await ended(manager, job)).finished_at for job in (first, *waiting)]
    assert ends == sorted(ends, key=str)


@pytest.mark.parametrize(
    ("request_", "param"), [({"steps": 100}, "steps"), ({"steps": 1, "x": 1}, "x")]
)
async def test_a_bad_request_is_refused_before_it_is_stored(
    manager: JobManager, job_store: Store, request_: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await manager.create("steps", request_, caller=LOCAL_USER, by=BY)
    assert caught.value.param == param
    with pytest.raises(InvalidFieldError, match="expected one of steps"):
        await manager.create("nothing", {}, caller=LOCAL_USER, by=BY)
    assert job_store.jobs.list().items == ()


ERRORS: dict[str, tuple[BaseException, str, bool]] = {
    "fit": (ZeroVectorError("too few", param="data.positive"), "zero_vector", True),
    "engine": (NonFiniteOutputError("NaN", is_steered=False), "engine_nonfinite", True),
    "dead": (EngineDeadError("secret"), "engine_dead", False),
    "full": (InsufficientStorageError("disk full"), "insufficient_storage", True),
    "bug": (RuntimeError("secret"), "server_error", False),
    "cancelled from within": (asyncio.CancelledError(), "server_error", False),
}


@pytest.mark.parametrize("error", ERRORS)
async def test_a_failure_is_stored_and_contained(
    manager: JobManager, steps: Steps, error: str
) -> None:
    raised, code, is_shown = ERRORS[error]
    steps.errors[error] = raised
    failed = await ended(manager, await ask(manager, fail_at=1, error=error))
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    body = failed.error["error"]
    assert code in body["code"]
    assert set(body) >= {"message", "type", "param", "code"}
    assert body["param"] == getattr(raised, "param", None)
    assert (str(raised) == body["message"]) is is_shown
    assert "secret" not in str(failed.error) + failed.message
    assert (await ended(manager, await ask(manager))).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("result", [{"total": math.nan}, {"total": object()}, {1: set()}])
async def test_a_result_that_is_not_json_fails_the_job(
    manager: JobManager, steps: Steps, result: Any
) -> None:
    steps.result = result
    failed = await ended(manager, await ask(manager))
    assert (failed.status, failed.result) == (JobStatus.FAILED, None)


async def test_cancelling_ends_what_runs(
    manager: JobManager, steps: Steps, observed: Observed
) -> None:
    job = await ask(manager, stop_at=1, save="never")
    await steps.arrived.wait()
    cancelled = await manager.cancel(job.id, by=BY)
    assert cancelled.status is JobStatus.CANCELLED
    assert (await manager.cancel(job.id, by=BY)).status is JobStatus.CANCELLED
    assert (await ended(manager, job)).result is None
    await until(lambda: observed.ended == [("steps", "cancelled", True)])
    assert steps.ended == ["CancelledError"]
    assert (await ended(manager, await ask(manager))).status is JobStatus.SUCCEEDED


async def test_a_kind_that_ignores_its_cancelling_stores_nothing(
    manager: JobManager, steps: Steps, job_store: Store
) -> None:
    job = await ask(manager, stop_at=1)
    await steps.arrived.wait()
    await manager.cancel(job.id, by=BY)
    context = steps.contexts[0]
    for late in (
        context.report(0.9, "late"),
        context.remember("late", 1),
        context.save_direction(None),  # type: ignore[arg-type]
        context.compute(sum, [1]),
    ):
        with pytest.raises(asyncio.CancelledError):
            await late
    assert job_store.directions.list().items == ()
    assert await context.recall("late") is None


async def test_cancelling_elsewhere_is_noticed(
    manager: JobManager, steps: Steps, job_store: Store
) -> None:
    job = await ask(manager, stop_at=1)
    await steps.arrived.wait()
    await asyncio.to_thread(job_store.jobs.cancel, job.id, by=SYSTEM)
    await until(lambda: steps.ended == ["CancelledError"])


async def test_a_waiting_job_is_cancelled_without_running(
    make_manager: MakeManager, steps: Steps, observed: Observed
) -> None:
    manager = make_manager()
    job = await ask(manager)
    await manager.cancel(job.id, by=BY)
    assert observed.ended == [("steps", "cancelled", False)]
    await manager.start()
    assert (await ended(manager, job)).attempts == 0
    assert steps.done == []


async def test_a_finished_job_is_not_cancelled(manager: JobManager) -> None:
    job = await ask(manager)
    await ended(manager, job)
    with pytest.raises(JobFinishedError):
        await manager.cancel(job.id, by=BY)


async def test_outputs_are_new_versions_with_the_scopes_of_the_request(
    manager: JobManager, job_store: Store
) -> None:
    plain = await ended(manager, await ask(manager, save="made"))
    assert plain.result is not None
    assert plain.result["direction"] == "made@1"
    restricted = await ended(manager, await ask(manager, save="made", requires=["restricted"]))
    assert restricted.result is not None
    assert restricted.result["direction"] == "made@2"
    again = await ended(manager, await ask(manager, save="made"))
    assert again.result is not None
    assert again.result["direction"] == "made@1", "equal tensors are the same version"
    record = job_store.directions.get("made", 2)
    assert record.requires == ("restricted",)
    assert record.created_by == BY.key_id
    assert record.provenance["job"] == restricted.id
    direction = DirectionLibrary(job_store).get(DirectionRef("made", 2))
    assert direction.at(1)["vector"].tolist() == [1.0] * 8


async def test_requires_binds_who_asks_and_what_is_used(
    manager: JobManager, job_store: Store
) -> None:
    with pytest.raises(PermissionDeniedError):
        await ask(manager, ADMIN, requires=["restricted"])
    with pytest.raises(InvalidFieldError):
        await ask(manager, requires=["nothing"])
    await ended(manager, await ask(manager, save="made", requires=["restricted"]))
    with pytest.raises(PermissionDeniedError, match="restricted") as caught:
        await ask(manager, ADMIN, use="made")
    assert caught.value.param == "use"
    allowed = await ended(manager, await ask(manager, use="made@1", save="more"))
    assert allowed.result is not None
    assert allowed.result["used"] == "made@1"
    assert allowed.requires == ("restricted",), "inherited"
    assert job_store.directions.get("more", 1).requires == ("restricted",)
    with pytest.raises(PermissionDeniedError):
        await manager.rerun(allowed.id, caller=ADMIN, by=BY)


async def test_a_direction_that_came_to_require_more_is_not_used(
    make_manager: MakeManager, job_store: Store
) -> None:
    """A name without version may mean another direction when the job begins."""
    manager = make_manager()
    uploader = Uploader(job_store, SPEC)
    uploader.from_direction(made_direction("open"), by=SYSTEM)
    waiting = await ask(manager, ADMIN, use="open")
    locked = replace(made_direction("open", 2.0), requires=("restricted",))
    uploader.from_direction(locked, by=SYSTEM)
    await manager.start()
    done = await ended(manager, waiting)
    assert done.error is not None
    assert (done.error["error"]["code"], done.error["error"]["param"]) == (
        "permission_denied",
        "use",
    )


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize("reference", ["made", "made@1"])
async def test_a_direction_that_is_not_there_is_refused_at_once(
    manager: JobManager, job_store: Store, reference: str, is_archived: bool
) -> None:
    if is_archived:
        Uploader(job_store, SPEC).from_direction(made_direction(), by=SYSTEM)
        job_store.directions.archive("made", 1, by=SYSTEM)
    with pytest.raises(DirectionNotFoundError) as caught:
        await ask(manager, use=reference)
    assert caught.value.param == "use"
    assert job_store.jobs.list().items == ()


async def test_a_store_that_fails_at_the_end_loses_no_result(
    manager: JobManager, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, faults = JobRuns.succeed, [StoreUnavailableError("x"), InsufficientStorageError("x")]

    def faulty(self: JobRuns, job_id: str, result: Any) -> None:
        if faults:
            raise faults.pop()
        real(self, job_id, result)

    monkeypatch.setattr(JobRuns, "succeed", faulty)
    done = await ended(manager, await ask(manager))
    assert done.result == {"total": 3}
    assert faults == []


async def test_progress_that_cannot_be_stored_does_not_fail_the_job(
    manager: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: Any) -> None:
        raise StoreUnavailableError("busy") from sqlite3.OperationalError("busy")

    monkeypatch.setattr(JobRuns, "report", faulty)
    monkeypatch.setattr(JobRuns, "beat", faulty)
    assert (await ended(manager, await ask(manager))).status is JobStatus.SUCCEEDED
