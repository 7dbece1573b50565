"""Jobs in the store: their life, their events, who runs them, and what they remember."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from server.store import SYSTEM, Actor, JobRecord, JobRuns, JobSpec, JobStatus, Store
from server.store.errors import (
    InvalidCursorError,
    JobActiveError,
    JobFinishedError,
    JobLostError,
    JobNotFoundError,
    JobQueueFullError,
)
from steering.errors import InvalidFieldError
from tests.server.store.conftest import Clock

REQUEST = {"name": "cheer", "data": {"positive": ["a", "é\u0000"]}, "seed": 3}
ADMIN = Actor("abcd1234", "request-1", "127.0.0.1")


@pytest.fixture(autouse=True)
def empty(store: Store) -> None:
    """The shared database of PostgreSQL has jobs of earlier tests; end those that wait."""
    for job in store.jobs.list(limit=200).items:
        if not job.status.is_final:
            store.jobs.cancel(job.id, by=SYSTEM)


def create(store: Store, kind: str = "fit", **fields: Any) -> JobRecord:
    spec = JobSpec(kind, fields.pop("request", REQUEST), fields.pop("model", "m1"), **fields)
    return store.jobs.create(spec, by=ADMIN, max_queued=100)


def runner(store: Store, owner: str = "server-1") -> JobRuns:
    return JobRuns(store.database, store.clock, owner)


def begin(store: Store, owner: str = "server-1", **fields: Any) -> JobRecord:
    create(store, **fields)
    claimed = runner(store, owner).claim("m1", ["fit"])
    assert claimed is not None
    assert claimed.job == store.jobs.get(claimed.job.id)
    return claimed.job


def statuses(store: Store, job_id: str) -> list[str]:
    events = store.jobs.events(job_id)
    assert [e.number for e in events] == list(range(1, len(events) + 1))
    assert store.jobs.get(job_id).num_events == len(events)
    return [e.status.value for e in events]


def test_a_new_job_waits_with_the_request_as_it_came(store: Store) -> None:
    job = create(store, requires=("restricted",))
    assert store.jobs.get(job.id) == job
    assert (job.status, job.fraction, job.attempts) == (JobStatus.QUEUED, 0.0, 0)
    assert store.jobs.request(job.id) == REQUEST
    assert job.name == "cheer"
    assert job.requires == ("restricted",)
    assert job.created_by == ADMIN.key_id
    assert statuses(store, job.id) == ["queued"]
    logged = store.audit.list(action="job.create").items[0]
    assert (logged.subject, logged.actor) == (f"job {job.id}", ADMIN)
    assert "cheer" not in str(logged.detail), "the audit log holds no text of a request"


@pytest.mark.parametrize("job_id", ["", "job-1", "job-" + "0" * 32, "job-\0", "x" * 1000])
def test_an_unknown_id_is_named(store: Store, job_id: str) -> None:
    for ask in (
        store.jobs.get,
        store.jobs.request,
        lambda i: store.jobs.cancel(i, by=SYSTEM),
        lambda i: store.jobs.resume(i, by=SYSTEM, max_queued=9),
    ):
        with pytest.raises(JobNotFoundError):
            ask(job_id)


def test_a_job_runs_and_succeeds(store: Store) -> None:
    job = begin(store)
    runs = runner(store)
    assert (job.status, job.attempts, job.owner) == (JobStatus.RUNNING, 1, "server-1")
    runs.report(job.id, 0.5, "half")
    runs.succeed(job.id, {"direction": "cheer@1", "receipt": {"n": 3}})
    ended = store.jobs.get(job.id)
    assert ended.result == {"direction": "cheer@1", "receipt": {"n": 3}}
    assert (ended.status, ended.fraction, ended.owner) == (JobStatus.SUCCEEDED, 1.0, None)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.created_at < ended.started_at < ended.finished_at
    assert statuses(store, job.id) == ["queued", "running", "running", "succeeded"]
    assert [e.message for e in store.jobs.events(job.id, 2)] == ["half", "succeeded"]


def test_jobs_begin_in_order_and_once(store: Store) -> None:
    jobs = [create(store).id for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        claims = [
            pool.submit(runner(store, f"server-{i % 2}").claim, "m1", ["fit"]) for i in range(6)
        ]
    claimed = [found.job.id for c in claims if (found := c.result()) is not None]
    # PostgreSQL's claims may overtake one another, but never take the same job.
    assert sorted(claimed) == sorted(jobs)


def test_only_a_server_that_can_run_a_job_takes_it(store: Store) -> None:
    job = create(store)
    runs = runner(store)
    assert runs.claim("another model", ["fit"]) is None
    assert runs.claim("m1", ["sweep"]) is None
    assert runs.claim("m1", []) is None
    claimed = runs.claim("m1", ["sweep", "fit"])
    assert claimed is not None
    assert claimed.job.id == job.id
    assert claimed.request == REQUEST


LATE: dict[str, Callable[[JobRuns, str], None]] = {
    "report": lambda runs, job: runs.report(job, 0.9, "late"),
    "succeed": lambda runs, job: runs.succeed(job, {}),
    "fail": lambda runs, job: runs.fail(job, {}, "late"),
    "remember": lambda runs, job: runs.remember(job, "key", 1),
    "require_own": lambda runs, job: runs.require_own(job),
}


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("how", ["cancelled", "interrupted", "resumed elsewhere"])
def test_a_lost_job_stores_nothing(store: Store, late: str, how: str) -> None:
    job = begin(store)
    if how == "cancelled":
        store.jobs.cancel(job.id, by=ADMIN)
    else:
        runner(store, "server-2").interrupt_abandoned(None)
    if how == "resumed elsewhere":
        store.jobs.resume(job.id, by=ADMIN, max_queued=9)
        assert runner(store, "server-2").claim("m1", ["fit"]) is not None
    before = store.jobs.get(job.id), store.jobs.events(job.id)
    with pytest.raises(JobLostError):
        LATE[late](runner(store), job.id)
    assert (store.jobs.get(job.id), store.jobs.events(job.id)) == before
    assert runner(store).recall(job.id, "key") is None


def test_cancelling_is_idempotent_until_the_job_has_ended(store: Store) -> None:
    job = create(store)
    first = store.jobs.cancel(job.id, by=ADMIN)
    assert store.jobs.cancel(job.id, by=ADMIN) == first
    assert first.status is JobStatus.CANCELLED
    assert runner(store).claim("m1", ["fit"]) is None
    done = begin(store)
    runner(store).succeed(done.id, {})
    with pytest.raises(JobFinishedError, match="succeeded"):
        store.jobs.cancel(done.id, by=ADMIN)
    assert len(store.audit.list(action="job.cancel").items) >= 1


def test_an_ended_job_resumes_with_its_request_and_what_it_remembers(store: Store) -> None:
    job = begin(store)
    runs = runner(store)
    runs.remember(job.id, "layers", {"3": [0.5, None]})
    runs.remember(job.id, "layers", {"3": [0.75]})
    runs.fail(job.id, {"error": {"code": "x"}}, "no room")
    assert store.jobs.get(job.id).error == {"error": {"code": "x"}}
    resumed = store.jobs.resume(job.id, by=ADMIN, max_queued=9)
    assert (resumed.status, resumed.error, resumed.finished_at) == (JobStatus.QUEUED, None, None)
    again = runner(store, "server-2").claim("m1", ["fit"])
    assert again is not None
    assert (again.job.id, again.job.attempts, again.request) == (job.id, 2, REQUEST)
    assert runner(store, "server-2").recall(job.id, "layers") == {"3": [0.75]}
    runner(store, "server-2").succeed(job.id, {})
    assert runs.recall(job.id, "layers") is None, "forgotten once it is of no use"


def test_what_waits_runs_or_succeeded_does_not_resume(store: Store) -> None:
    job = create(store)
    for _ in range(2):
        with pytest.raises(JobActiveError):
            store.jobs.resume(job.id, by=ADMIN, max_queued=9)
        runner(store).claim("m1", ["fit"])
    runner(store).succeed(job.id, {})
    with pytest.raises(JobFinishedError, match="rerun"):
        store.jobs.resume(job.id, by=ADMIN, max_queued=9)


def test_the_queue_is_bounded(store: Store) -> None:
    waiting = [create(store).id for _ in range(2)]
    assert store.jobs.num_queued() == 2
    spec = JobSpec("fit", REQUEST, "m1")
    with pytest.raises(JobQueueFullError, match="2 jobs wait"):
        store.jobs.create(spec, by=ADMIN, max_queued=2)
    ended = store.jobs.cancel(waiting[0], by=ADMIN)
    store.jobs.create(spec, by=ADMIN, max_queued=2)
    with pytest.raises(JobQueueFullError):
        store.jobs.resume(ended.id, by=ADMIN, max_queued=2)
    assert store.jobs.get(ended.id) == ended


def test_a_stopping_server_interrupts_its_own_jobs(store: Store) -> None:
    mine, other = begin(store), begin(store, "server-2")
    runner(store).interrupt_own()
    assert store.jobs.get(mine.id).status is JobStatus.INTERRUPTED
    assert store.jobs.get(other.id).status is JobStatus.RUNNING


def test_a_silent_server_loses_its_jobs(store: Store, clock: Clock) -> None:
    silent, alive = begin(store), begin(store, "server-2")
    clock.now += timedelta(seconds=60)
    assert runner(store, "server-2").beat() == {alive.id}
    runner(store, "server-3").interrupt_abandoned(30)
    assert store.jobs.get(silent.id).status is JobStatus.INTERRUPTED
    assert store.jobs.get(alive.id).status is JobStatus.RUNNING
    assert runner(store).beat() == frozenset()
    runner(store, "server-2").interrupt_abandoned(0)
    assert store.jobs.get(alive.id).status is JobStatus.RUNNING, "its own are not abandoned"


def test_listing_is_newest_first_and_filtered(store: Store) -> None:
    ids = [create(store, kind).id for kind in ("fit", "listed", "fit", "listed", "listed")]
    store.jobs.cancel(ids[1], by=ADMIN)
    page = store.jobs.list(limit=2, kind="listed")
    rest = store.jobs.list(page.next_cursor, 200, kind="listed")
    found = [j.id for j in (*page.items, *rest.items)]
    assert found[:3] == [ids[4], ids[3], ids[1]]
    waiting = store.jobs.list(kind="listed", status=JobStatus.QUEUED)
    assert [j.id for j in waiting.items] == [ids[4], ids[3]]
    with pytest.raises(InvalidCursorError):
        store.jobs.list(page.next_cursor, kind="fit")


def test_requests_are_read_only_where_they_are_asked_for(store: Store) -> None:
    """They may be megabytes each; whoever lists or follows needs none of it."""
    statements: list[str] = []
    job = create(store)
    with store.database.reading() as session:
        engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    store.jobs.list()
    store.jobs.get(job.id)
    store.jobs.events(job.id)
    store.jobs.cancel(job.id, by=ADMIN)
    store.jobs.resume(job.id, by=ADMIN, max_queued=100)
    assert any("jobs.name" in statement for statement in statements)
    assert not any("jobs.request" in statement for statement in statements)
    store.jobs.request(job.id)
    assert "jobs.request" in statements[-1]


@pytest.mark.parametrize("name", [None, 3, "A name", "n" * 65, "", "null\0"])
def test_a_request_without_a_name_has_none(store: Store, name: Any) -> None:
    assert create(store, request={"name": name}).name is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("", 1), ("k" * 129, 1), ("nan", float("nan")), ("bytes", b""), ("long", "x" * (2**24 + 1))],
    ids=["no key", "long key", "nan", "bytes", "too long"],
)
def test_only_short_json_is_remembered(sqlite_store: Store, key: str, value: Any) -> None:
    job = begin(sqlite_store)
    with pytest.raises(InvalidFieldError):
        runner(sqlite_store).remember(job.id, key, value)


def test_long_messages_are_cut(sqlite_store: Store) -> None:
    job = begin(sqlite_store)
    runner(sqlite_store).report(job.id, 0.1, "m" * 10_000)
    assert len(sqlite_store.jobs.get(job.id).message) == 500
