"""Jobs as a server that runs them sees them: claimed, kept alive, reported, ended.

A job belongs to one server at a time. Everything stored for a running job is stored only while it
still belongs to that server, in the same transaction; whoever lost it gets `JobLostError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session, undefer

from server.store.canonical import canonical_json
from server.store.clock import WallClock
from server.store.database import Database
from server.store.errors import JobLostError
from steering.errors import InvalidFieldError

from .jobs import add_event, find_job
from .record import ClaimedJob, JobRecord, JobStatus
from .tables import JobRow, JobValueRow

MAX_VALUE_BYTES: Final = 16 * 2**20
"""Longest JSON text of one value that a job remembers."""

_MAX_MESSAGE_CHARS: Final = 500
_MAX_KEY_CHARS: Final = 128


class JobRuns:
    """The running of jobs by one server. Thread-safe.

    Args:
        database: Shared with the other stores.
        clock: UTC now.
        owner: Id of this server, its own at every start.
    """

    def __init__(self, database: Database, clock: WallClock, owner: str) -> None:
        self._database = database
        self._clock = clock
        self._owner = owner

    def claim(self, model_fingerprint: str, kinds: Sequence[str]) -> ClaimedJob | None:
        """Begin the oldest job that waits for such a server; None where none does."""
        query = (
            select(JobRow)
            .where(
                JobRow.status == JobStatus.QUEUED.value,
                JobRow.model_fingerprint == model_fingerprint,
                JobRow.kind.in_(kinds),
            )
            .order_by(JobRow.sequence)
            .limit(1)
            .options(undefer(JobRow.request))
            .with_for_update(skip_locked=True)
        )

        def work(session: Session) -> ClaimedJob | None:
            row = session.scalars(query).one_or_none()
            if row is None:
                return None
            now = self._clock()
            row.status, row.owner = JobStatus.RUNNING.value, self._owner
            row.started_at = row.heartbeat_at = now
            row.attempts += 1
            row.fraction, row.message = 0.0, "started"
            add_event(session, row, now)
            return ClaimedJob(JobRecord.from_row(row), row.request)

        return self._database.write(work)

    def beat(self) -> frozenset[str]:
        """Say that this server lives; returns the ids of the jobs that are still its own."""
        mine = (JobRow.owner == self._owner, JobRow.status == JobStatus.RUNNING.value)

        def work(session: Session) -> frozenset[str]:
            session.execute(update(JobRow).where(*mine).values(heartbeat_at=self._clock()))
            return frozenset(session.scalars(select(JobRow.id).where(*mine)))

        return self._database.write(work)

    def report(self, job_id: str, fraction: float, message: str) -> None:
        """Record progress.

        Raises:
            JobLostError: The job was cancelled, or taken over.
        """

        def work(session: Session) -> None:
            row = self._own_job(session, job_id)
            row.fraction, row.message = fraction, message[:_MAX_MESSAGE_CHARS]
            add_event(session, row, self._clock())

        self._database.write(work)

    def succeed(self, job_id: str, result: Mapping[str, Any]) -> None:
        """Store the result; what the job remembered is forgotten.

        Raises:
            JobLostError: The job was cancelled, or taken over.
        """

        def work(session: Session) -> None:
            row = self._own_job(session, job_id)
            row.result, row.fraction = dict(result), 1.0
            self._end(session, row, JobStatus.SUCCEEDED, "succeeded")
            session.execute(delete(JobValueRow).where(JobValueRow.job_id == job_id))

        self._database.write(work)

    def fail(self, job_id: str, error: Mapping[str, Any], message: str) -> None:
        """Store the error a job ended with; what it remembered stays.

        Raises:
            JobLostError: The job was cancelled, or taken over.
        """

        def work(session: Session) -> None:
            row = self._own_job(session, job_id)
            row.error = dict(error)
            self._end(session, row, JobStatus.FAILED, message[:_MAX_MESSAGE_CHARS])

        self._database.write(work)

    def interrupt_own(self) -> None:
        """End every job of this server, which stops."""
        query = select(JobRow).where(JobRow.owner == self._owner)
        self._interrupt(query, "the server stopped; resume the job to go on")

    def interrupt_abandoned(self, silence_seconds: float | None) -> None:
        """End the jobs of servers that were silent for so long; None: of every other server."""
        query = select(JobRow).where(JobRow.owner != self._owner)
        if silence_seconds is not None:
            limit = self._clock() - timedelta(seconds=silence_seconds)
            query = query.where(JobRow.heartbeat_at < limit)
        self._interrupt(query, "its server stopped without a word; resume the job to go on")

    def remember(self, job_id: str, key: str, value: Any) -> None:
        """Keep a JSON value.

        Raises:
            InvalidFieldError: The key or the value is too long, or the value is not JSON.
            JobLostError: The job was cancelled, or taken over.
        """
        _check_value(key, value)

        def work(session: Session) -> None:
            self._own_job(session, job_id)
            session.merge(JobValueRow(job_id=job_id, key=key, value=value))

        self._database.write(work)

    def recall(self, job_id: str, key: str) -> Any:
        """A value that was kept, or None."""
        with self._database.reading() as session:
            row = session.get(JobValueRow, (job_id, key))
            return None if row is None else row.value

    def require_own(self, job_id: str) -> None:
        """Check that the job is still this server's.

        Raises:
            JobLostError: It was cancelled, or taken over.
        """
        with self._database.reading() as session:
            self._check(find_job(session, job_id))

    def _own_job(self, session: Session, job_id: str) -> JobRow:
        row = find_job(session, job_id, is_locked=True)
        self._check(row)
        return row

    def _check(self, row: JobRow) -> None:
        if row.owner != self._owner or row.status != JobStatus.RUNNING.value:
            raise JobLostError(f"job {row.id} is {row.status} and no longer run by this server")

    def _end(self, session: Session, row: JobRow, status: JobStatus, message: str) -> None:
        now = self._clock()
        row.status, row.message = status.value, message
        row.owner, row.finished_at = None, now
        add_event(session, row, now)

    def _interrupt(self, query: Select[JobRow], message: str) -> None:
        running = query.where(JobRow.status == JobStatus.RUNNING.value)

        def work(session: Session) -> None:
            for row in session.scalars(running.with_for_update()).all():
                self._end(session, row, JobStatus.INTERRUPTED, message)

        self._database.write(work)


def _check_value(key: str, value: Any) -> None:
    if not 0 < len(key) <= _MAX_KEY_CHARS:
        raise InvalidFieldError(
            f"key has {len(key)} characters; expected 1 to {_MAX_KEY_CHARS}", param="key"
        )
    try:
        size = len(canonical_json(value))
    except (TypeError, ValueError) as error:
        raise InvalidFieldError(f"value of {key!r} is not JSON: {error}", param=key) from None
    if size > MAX_VALUE_BYTES:
        raise InvalidFieldError(
            f"value of {key!r} has {size} bytes of JSON; expected at most {MAX_VALUE_BYTES}",
            param=key,
        )
