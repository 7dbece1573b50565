"""Jobs that ended long ago: which go, which stay, and what goes with them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from server.store import SYSTEM, JobRuns, JobSpec, JobStatus, Store
from server.store.errors import JobNotFoundError
from server.store.jobs.pruning import _BATCH
from server.store.jobs.tables import JobEventRow, JobRow, JobValueRow
from tests.server.store.conftest import Clock
from tests.server.store.samples import direction, put

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def empty(store: Store) -> None:
    """The shared database of PostgreSQL has jobs of earlier tests."""
    for job in store.jobs.list(limit=200).items:
        if not job.status.is_final:
            store.jobs.cancel(job.id, by=SYSTEM)
    store.jobs.prune(timedelta(0))


def create(store: Store) -> str:
    return store.jobs.create(JobSpec("fit", {"name": "x"}, "m1"), by=SYSTEM, max_queued=999).id


def ended(store: Store, how: str) -> str:
    job_id, runs = create(store), JobRuns(store.database, store.clock, "server-1")
    if how == "cancelled":
        store.jobs.cancel(job_id, by=SYSTEM)
        return job_id
    assert runs.claim("m1", ["fit"]) is not None
    runs.remember(job_id, "step", 3)
    match how:
        case "succeeded":
            runs.succeed(job_id, {"direction": "x@1"})
        case "failed":
            runs.fail(job_id, {"error": {"code": "x"}}, "no")
        case "interrupted":
            runs.interrupt_own()
    return job_id


def num_rows(store: Store, job_id: str) -> list[int]:
    queries = [
        select(func.count()).where(column == job_id)
        for column in (JobRow.id, JobEventRow.job_id, JobValueRow.job_id)
    ]
    with store.database.reading() as session:
        return [session.scalars(query).one() for query in queries]


@pytest.mark.parametrize("how", ["succeeded", "failed", "cancelled", "interrupted"])
def test_an_ended_job_goes_after_its_days_with_all_its_rows(
    store: Store, clock: Clock, how: str
) -> None:
    old = ended(store, how)
    clock.now += 2 * DAY
    young = ended(store, how)
    assert store.jobs.prune(3 * DAY).removed == ()
    assert store.jobs.prune(DAY, dry_run=True).removed == (old,)
    assert num_rows(store, old)[0] == 1
    assert store.jobs.prune(DAY).removed == (old,)
    assert num_rows(store, old) == [0, 0, 0]
    assert num_rows(store, young)[0] == 1
    with pytest.raises(JobNotFoundError):
        store.jobs.get(old)
    logged = store.audit.list(action="job.prune").items[0]
    assert (logged.subject, logged.actor) == (f"job {old}", SYSTEM)


def test_what_waits_runs_or_was_resumed_stays(store: Store, clock: Clock) -> None:
    resumed = ended(store, "interrupted")
    store.jobs.resume(resumed, by=SYSTEM, max_queued=9)
    runs = JobRuns(store.database, store.clock, "server-1")
    assert runs.claim("m1", ["fit"]) is not None
    waiting = create(store)
    clock.now += 9 * DAY
    assert store.jobs.prune(timedelta(0)).removed == ()
    found = [store.jobs.get(job_id).status for job_id in (resumed, waiting)]
    assert found == [JobStatus.RUNNING, JobStatus.QUEUED]


@pytest.mark.parametrize("is_archived", [False, True])
def test_a_job_that_a_direction_came_from_stays(
    store: Store, clock: Clock, *, is_archived: bool
) -> None:
    source, other = ended(store, "succeeded"), ended(store, "succeeded")
    name = f"made-{is_archived}".lower()
    made = put(store, direction(name, provenance={"job": source, "text": "\0"})).record
    put(store, direction("odd", provenance={"job": 3}))
    if is_archived:
        store.directions.archive(name, made.version, by=SYSTEM)
    clock.now += 2 * DAY
    found = store.jobs.prune(DAY)
    assert source not in found.removed
    assert other in found.removed
    assert found.num_spared >= 1
    assert store.jobs.get(source).result == {"direction": "x@1"}
    assert store.jobs.request(source) == {"name": "x"}


def test_more_than_one_batch_goes(sqlite_store: Store, clock: Clock) -> None:
    jobs = [ended(sqlite_store, "cancelled") for _ in range(_BATCH + 2)]
    clock.now += 2 * DAY
    assert sqlite_store.jobs.prune(DAY).removed == tuple(jobs)
    assert sqlite_store.jobs.list().items == ()
    assert sqlite_store.audit_fault() is None
