"""The events of a job, which whoever watches it replays."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from .tables import JobEventRow, JobRow

__all__ = ["add_event"]


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
