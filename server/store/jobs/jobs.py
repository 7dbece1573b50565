"""Jobs as their callers see them: created, listed, cancelled, resumed, pruned."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session, undefer

from server.store.audit import Actor, AuditStore
from server.store.clock import WallClock
from server.store.database import Database
from server.store.errors import (
    JobActiveError,
    JobFinishedError,
    JobNotFoundError,
    JobQueueFullError,
)
from server.store.page import Listing, Page
from steering.documents import NAME_PATTERN

from .pruning import PrunedJobs, prune_jobs
from .record import JobEvent, JobRecord, JobSpec, JobStatus
from .tables import JobEventRow, JobRow

_ID: Final = re.compile(r"job-[0-9a-f]{32}")
_MAX_EVENTS: Final = 500


class JobStore:
    """Jobs by id. Thread-safe. What runs them uses `JobRuns`."""

    def __init__(self, database: Database, audit: AuditStore, clock: WallClock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    def create(self, spec: JobSpec, *, by: Actor, max_queued: int) -> JobRecord:
        """Queue a new job; jobs begin in the order they were asked for.

        Raises:
            JobQueueFullError: `max_queued` jobs wait already.
        """
        return self._database.write(lambda session: self._create(session, spec, by, max_queued))

    def get(self, job_id: str) -> JobRecord:
        """One job.

        Raises:
            JobNotFoundError: There is none.
        """
        with self._database.reading() as session:
            return JobRecord.from_row(find_job(session, job_id))

    def request(self, job_id: str) -> Mapping[str, Any]:
        """The document that the caller of a job sent.

        Raises:
            JobNotFoundError: There is none.
        """
        with self._database.reading() as session:
            return find_job(session, job_id, with_request=True).request

    def list(
        self,
        cursor: str | None = None,
        limit: int = 50,
        *,
        status: JobStatus | None = None,
        kind: str | None = None,
    ) -> Page[JobRecord]:
        """Jobs, newest first.

        Raises:
            InvalidCursorError: Another listing gave out the cursor.
        """
        listing = Listing("jobs", (status, kind), limit)
        before = listing.after(cursor, int)
        query = select(JobRow).order_by(JobRow.sequence.desc()).limit(limit + 1)
        if status is not None:
            query = query.where(JobRow.status == status.value)
        if kind is not None:
            query = query.where(JobRow.kind == kind)
        if before is not None:
            query = query.where(JobRow.sequence < before)
        with self._database.reading() as session:
            rows = session.scalars(query).all()
            return listing.page(rows, lambda row: row.sequence, JobRecord.from_row)

    def events(self, job_id: str, after: int = 0) -> tuple[JobEvent, ...]:
        """The events numbered above `after`, oldest first; at most some hundreds at once."""
        query = (
            select(JobEventRow)
            .where(JobEventRow.job_id == job_id, JobEventRow.number > after)
            .order_by(JobEventRow.number)
            .limit(_MAX_EVENTS)
        )
        with self._database.reading() as session:
            return tuple(map(JobEvent.from_row, session.scalars(query)))

    def cancel(self, job_id: str, *, by: Actor) -> JobRecord:
        """End a job that waits or runs; no effect where it is cancelled already.

        Whoever runs it finds out at the next thing it stores, and stores nothing.

        Raises:
            JobNotFoundError: There is none.
            JobFinishedError: It ended otherwise.
        """

        def work(session: Session) -> JobRecord:
            row = find_job(session, job_id, is_locked=True)
            status = JobStatus(row.status)
            if status is not JobStatus.CANCELLED:
                if status.is_final:
                    raise JobFinishedError(f"job {job_id} has {status} already")
                row.owner, row.finished_at = None, self._clock()
                self._change(session, row, JobStatus.CANCELLED, "cancelled", "job.cancel", by)
            return JobRecord.from_row(row)

        return self._database.write(work)

    def resume(self, job_id: str, *, by: Actor, max_queued: int) -> JobRecord:
        """Queue a job again that was interrupted, cancelled or failed, with what it remembers.

        Raises:
            JobNotFoundError: There is none.
            JobActiveError: It waits or runs.
            JobFinishedError: It succeeded.
            JobQueueFullError: `max_queued` jobs wait already.
        """

        def work(session: Session) -> JobRecord:
            row = find_job(session, job_id, is_locked=True)
            status = JobStatus(row.status)
            if not status.is_final:
                raise JobActiveError(f"job {job_id} is {status}; only one that has ended resumes")
            if status is JobStatus.SUCCEEDED:
                raise JobFinishedError(f"job {job_id} has succeeded; rerun it to do it once more")
            _require_place(session, max_queued)
            row.error = row.finished_at = None
            self._change(session, row, JobStatus.QUEUED, "queued to resume", "job.resume", by)
            return JobRecord.from_row(row)

        return self._database.write(work)

    def prune(self, age: timedelta, *, dry_run: bool = False) -> PrunedJobs:
        """Remove jobs that ended at least `age` ago, with their requests, results and events.

        A job that a direction came from stays for as long as the direction, archived or not: its
        request and result say how the direction was made. So does one that waits or runs.
        """
        ended_before = self._clock() - age
        return prune_jobs(self._database, self._audit, ended_before, dry_run=dry_run)

    def num_queued(self) -> int:
        """Number of jobs that wait."""
        with self._database.reading() as session:
            return _num_queued(session)

    def _create(self, session: Session, spec: JobSpec, by: Actor, max_queued: int) -> JobRecord:
        _require_place(session, max_queued)
        now = self._clock()
        row = JobRow(
            id=f"job-{uuid.uuid4().hex}",
            kind=spec.kind,
            name=_name_in(spec.request),
            request=dict(spec.request),
            requires=sorted(set(spec.requires)),
            model_fingerprint=spec.model_fingerprint,
            rerun_of=spec.rerun_of,
            created_at=now,
            created_by=by.key_id,
            status=JobStatus.QUEUED.value,
            fraction=0.0,
            message="queued",
            attempts=0,
            num_events=0,
        )
        session.add(row)
        session.flush()
        add_event(session, row, now)
        detail = {"kind": spec.kind, "requires": row.requires, "rerun_of": spec.rerun_of}
        self._audit.record(session, "job.create", f"job {row.id}", by=by, detail=detail)
        return JobRecord.from_row(row)

    def _change(
        self, session: Session, row: JobRow, to: JobStatus, message: str, action: str, by: Actor
    ) -> None:
        before, row.status, row.message = row.status, to.value, message
        add_event(session, row, self._clock())
        self._audit.record(session, action, f"job {row.id}", by=by, before=before, after=to.value)


def find_job(
    session: Session, job_id: str, *, is_locked: bool = False, with_request: bool = False
) -> JobRow:
    """The row of a job; `is_locked` makes other writers of it wait.

    Raises:
        JobNotFoundError: There is none.
    """
    row = None
    if _ID.fullmatch(job_id):
        query = select(JobRow).where(JobRow.id == job_id)
        if with_request:
            query = query.options(undefer(JobRow.request))
        row = session.scalars(query.with_for_update() if is_locked else query).one_or_none()
    if row is None:
        raise JobNotFoundError(
            f"there is no job {job_id[:80]!r}; GET /v1/steering/jobs lists those there are"
        )
    return row


def add_event(session: Session, row: JobRow, at: datetime) -> None:
    """Record what `row` says of its progress now; `row` is locked or new."""
    row.num_events += 1
    session.add(
        JobEventRow(
            job_id=row.id,
            number=row.num_events,
            at=at,
            status=row.status,
            fraction=row.fraction,
            message=row.message,
        )
    )
    session.flush()


def _name_in(request: Mapping[str, Any]) -> str | None:
    name = request.get("name")
    return name if isinstance(name, str) and NAME_PATTERN.fullmatch(name) else None


def _num_queued(session: Session) -> int:
    query = select(func.count()).where(JobRow.status == JobStatus.QUEUED.value)
    return session.scalars(query).one()


def _require_place(session: Session, max_queued: int) -> None:
    if _num_queued(session) >= max_queued:
        raise JobQueueFullError(
            f"{max_queued} jobs wait already; try again when some have ended, or cancel some"
        )
