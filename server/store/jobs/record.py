"""Records of jobs: the request, the state at one moment, the events of its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from .tables import JobEventRow, JobRow


class JobStatus(StrEnum):
    """The stage of a job's life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # its server stopped; may be resumed

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless somebody asks for it."""
        return self in FINAL_STATUSES


FINAL_STATUSES: Final = frozenset(
    {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.INTERRUPTED}
)
"""Statuses of a job that neither waits nor runs."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The request for a job; never changes.

    Attributes:
        kind: Name of its kind.
        request: The caller's document, without `kind`.
        model_fingerprint: Model it was checked against; only servers of that model run it.
        requires: Permissions a key must hold to start it; its outputs require them too.
        rerun_of: Id of the job whose request it repeats.
    """

    kind: str
    request: Mapping[str, Any]
    model_fingerprint: str
    requires: tuple[str, ...] = ()
    rerun_of: str | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job at one moment, without its request.

    Attributes:
        id: `job-` and 32 hexadecimal digits.
        kind: Name of its kind.
        name: What the request calls its output, or None.
        model_fingerprint: Fingerprint of the model it was checked against.
        requires: Permissions a key must hold to start it; its outputs require them too.
        rerun_of: Id of the job whose request it repeats, or None.
        status: Its stage.
        fraction: Progress of the present attempt, from 0 to 1.
        message: Its present activity, or how it ended.
        result: Result document of its kind; None until it succeeded.
        error: Body of the error it failed with, or None.
        attempts: Number of times it was begun.
        num_events: Number of its last event.
        owner: Id of the server that runs it; None while none does.
        created_at: UTC.
        created_by: Id of the key that asked for it.
        started_at: UTC, beginning of the present attempt.
        finished_at: UTC.
    """

    id: str
    kind: str
    name: str | None
    model_fingerprint: str
    requires: tuple[str, ...]
    rerun_of: str | None
    status: JobStatus
    fraction: float
    message: str
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    attempts: int
    num_events: int
    owner: str | None
    created_at: datetime
    created_by: str | None
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: JobRow) -> Self:
        """The value of a row."""
        return cls(
            id=row.id,
            kind=row.kind,
            name=row.name,
            model_fingerprint=row.model_fingerprint,
            requires=tuple(row.requires),
            rerun_of=row.rerun_of,
            status=JobStatus(row.status),
            fraction=row.fraction,
            message=row.message,
            result=row.result,
            error=row.error,
            attempts=row.attempts,
            num_events=row.num_events,
            owner=row.owner,
            created_at=row.created_at,
            created_by=row.created_by,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that a server begins.

    Attributes:
        job: The job as it is now.
        request: The caller's document, without `kind`.
    """

    job: JobRecord
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One step of a job's progress.

    Attributes:
        number: Number of the event in its job, from 1, without gaps.
        at: UTC.
        status: The job's stage from then on.
        fraction: Progress of the present attempt, from 0 to 1.
        message: Text for people.
    """

    number: int
    at: datetime
    status: JobStatus
    fraction: float
    message: str

    @classmethod
    def from_row(cls, row: JobEventRow) -> Self:
        """The value of a row."""
        return cls(row.number, row.at, JobStatus(row.status), row.fraction, row.message)
