"""The rows of jobs; created by migrations 0002 and 0004."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.store.tables import ROW_ID, Base

_JOB_ID: Final = String(40)
_NULLABLE_JSON: Final = JSON(none_as_null=True)


class JobRow(Base):
    """One job; what was asked never changes, how it goes does.

    A request may be megabytes, so it is read only where it is asked for by name.
    """

    __tablename__ = "jobs"
    __table_args__ = (UniqueConstraint("id"),)

    sequence: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(_JOB_ID)
    kind: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(String(64))
    request: Mapped[dict[str, Any]] = mapped_column(deferred=True, deferred_raiseload=True)
    requires: Mapped[list[Any]]
    model_fingerprint: Mapped[str]
    rerun_of: Mapped[str | None] = mapped_column(_JOB_ID)
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), index=True)
    fraction: Mapped[float]
    message: Mapped[str]
    result: Mapped[dict[str, Any] | None] = mapped_column(_NULLABLE_JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(_NULLABLE_JSON)
    attempts: Mapped[int]
    num_events: Mapped[int]
    owner: Mapped[str | None] = mapped_column(String(32))
    heartbeat_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEventRow(Base):
    """One step of a job's progress, numbered from 1."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(_JOB_ID, ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    status: Mapped[str] = mapped_column(String(16))
    fraction: Mapped[float]
    message: Mapped[str]


class JobValueRow(Base):
    """Something a job remembers, to go on with after a restart."""

    __tablename__ = "job_values"

    job_id: Mapped[str] = mapped_column(_JOB_ID, ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)
