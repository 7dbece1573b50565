"""Work that the server does on its own model."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .record import Record

_FINAL = frozenset({"succeeded", "failed", "cancelled", "interrupted"})


class Job(Record):
    """A job at one moment; times are Unix seconds.

    Attributes:
        status: queued, running, succeeded, failed, cancelled or interrupted.
        progress: Share of its work that is done, 0 to 1.
        message: What it does now, or how it ended.
        result: What its kind of job makes, once it succeeded; of a fit `{direction, receipt}`.
        error: Why it failed: message, type, param and code.
        attempts: Number of times it was begun.
        num_events: Number of its last event.
        request: The request as it was sent; None in listings.
        rerun_of: Id of the job whose request it repeats.
    """

    id: str
    kind: str
    name: str | None = None
    status: str
    progress: float
    message: str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    attempts: int = 0
    num_events: int = 0
    request: dict[str, Any] | None = None
    rerun_of: str | None = None
    requires: list[str] = Field(default_factory=list)
    model_fingerprint: str | None = None
    created_at: int | None = None
    created_by: str | None = None
    started_at: int | None = None
    finished_at: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless it is resumed."""
        return self.status in _FINAL

    @property
    def has_succeeded(self) -> bool:
        """Whether it has ended with a result."""
        return self.status == "succeeded"


class JobEvent(Record):
    """One step of a job's progress; `number` counts from 1.

    Attributes:
        status: Status of the job from this event on.
        progress: Share of its work that is done, 0 to 1.
        message: What it does, or how it ended.
    """

    job: str
    number: int
    at: str
    status: str
    progress: float
    message: str

    @property
    def is_failure(self) -> bool:
        """Whether the job ended with it, and did not succeed."""
        return self.status in _FINAL - {"succeeded"}
