"""Removing jobs that ended long ago."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from server.store.audit import SYSTEM, AuditStore
from server.store.database import Database
from server.store.tables import DirectionRow

from .record import FINAL_STATUSES
from .tables import JobEventRow, JobRow, JobValueRow

_BATCH: Final = 200
_ENDED: Final = tuple(sorted(status.value for status in FINAL_STATUSES))


@dataclass(frozen=True, slots=True)
class PrunedJobs:
    """The jobs that `JobStore.prune` removed, or would have removed in a dry run.

    Attributes:
        removed: Ids of jobs, with their requests, results, events and what they remembered.
        num_spared: Number of jobs as old that stay because a direction came from them.
    """

    removed: tuple[str, ...]
    num_spared: int


def prune_jobs(
    database: Database, audit: AuditStore, ended_before: datetime, *, dry_run: bool
) -> PrunedJobs:
    """Remove what ended before a time; see `JobStore.prune`."""
    old = (JobRow.status.in_(_ENDED), JobRow.finished_at < ended_before)
    with database.reading() as session:
        found = session.scalars(select(JobRow.id).where(*old).order_by(JobRow.sequence)).all()
        sources = _sources(session) if found else frozenset()
    doomed = [job_id for job_id in found if job_id not in sources]
    num_spared = len(found) - len(doomed)
    if dry_run:
        return PrunedJobs(tuple(doomed), num_spared)
    removed: list[str] = []
    for start in range(0, len(doomed), _BATCH):
        chosen = (*old, JobRow.id.in_(doomed[start : start + _BATCH]))
        removed += database.write(partial(_remove, audit=audit, chosen=chosen))
    return PrunedJobs(tuple(removed), num_spared)


def _sources(session: Session) -> frozenset[str]:
    """Ids of the jobs that directions name as where they came from; archived ones too."""
    named = set()
    for provenance in session.scalars(select(DirectionRow.provenance)).yield_per(_BATCH):
        job_id = provenance.get("job")
        if isinstance(job_id, str):
            named.add(job_id)
    return frozenset(named)


def _remove(
    session: Session, audit: AuditStore, chosen: tuple[ColumnElement[bool], ...]
) -> list[str]:
    """Remove those that still are as chosen: one may have been resumed meanwhile."""
    query = select(JobRow.id).where(*chosen).order_by(JobRow.sequence).with_for_update()
    ids = list(session.scalars(query))
    for rows in (JobEventRow, JobValueRow):
        session.execute(delete(rows).where(rows.job_id.in_(ids)))
    session.execute(delete(JobRow).where(JobRow.id.in_(ids)))
    for job_id in ids:
        audit.record(session, "job.prune", f"job {job_id}", by=SYSTEM)
    return ids
