"""The audit log: who changed what and when, append-only, each event chained to the one before."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from .canonical import json_digest
from .clock import WallClock
from .database import Database
from .errors import AuditTamperedError
from .page import Listing, Page
from .tables import AuditHeadRow, AuditRow

_GENESIS: Final = "0" * 64
_BATCH: Final = 500
_REGISTRY: Final = frozenset({"direction", "profile", "alias"})


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller on whose behalf a change is made.

    Attributes:
        key_id: Id of the API key; None for the server itself and its local user.
        request_id: Id of the HTTP request.
        address: The client's address.
    """

    key_id: str | None = None
    request_id: str | None = None
    address: str | None = None


SYSTEM: Final = Actor()
"""The server itself."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event of the audit log.

    Attributes:
        sequence: Number of the event, from 1, without gaps.
        at: UTC.
        actor: Who did it.
        action: The kind of change, for example `profile.publish`.
        subject: The thing changed, for example `profile careful@2`.
        before: State before it: a digest, or the target of an alias; None where there was none.
        after: State after it; None where there is none.
        detail: Further JSON; never secrets and never text of users' chats.
        previous_hash: `hash` of the event before; 64 zeros for the first.
        hash: SHA-256 over all of the above.
    """

    sequence: int
    at: datetime
    actor: Actor
    action: str
    subject: str
    before: str | None
    after: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    previous_hash: str = _GENESIS
    hash: str = ""


class AuditStore:
    """The audit log. Nothing in it is ever changed or removed. Thread-safe."""

    def __init__(self, database: Database, clock: WallClock) -> None:
        self._database = database
        self._clock = clock
        self._changes = 0
        self._lock = threading.Lock()

    def append(
        self,
        action: str,
        subject: str,
        *,
        by: Actor,
        before: str | None = None,
        after: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> AuditEvent:
        """Record something that changes no other row, such as the use of a restricted profile."""
        return self._database.write(
            lambda session: self.record(
                session, action, subject, by=by, before=before, after=after, detail=detail
            )
        )

    def record(
        self,
        session: Session,
        action: str,
        subject: str,
        *,
        by: Actor,
        before: str | None = None,
        after: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> AuditEvent:
        """Append within a caller's write transaction; other writers then wait for its end."""
        head = session.get(AuditHeadRow, 1, with_for_update=True)
        if head is None:
            head = AuditHeadRow(id=1, sequence=0, last_change=0, hash=_GENESIS)
            session.add(head)
        row = AuditRow(
            sequence=head.sequence + 1,
            at=self._clock(),
            key_id=by.key_id,
            request_id=by.request_id,
            address=by.address,
            action=action,
            subject=subject,
            before=before,
            after=after,
            detail=dict(detail or {}),
            previous_hash=head.hash,
        )
        row.hash = _hash(row)
        session.add(row)
        head.sequence, head.hash = row.sequence, row.hash
        if action.partition(".")[0] in _REGISTRY:
            head.last_change = row.sequence
            event.listen(session, "after_commit", self._has_changed, once=True)
        session.flush()
        return _event(row)

    def list(
        self, cursor: str | None = None, limit: int = 50, *, action: str | None = None
    ) -> Page[AuditEvent]:
        """Events, newest first; `action` keeps one kind.

        Raises:
            InvalidCursorError: Another listing gave out the cursor.
        """
        listing = Listing("audit", (action,), limit)
        before = listing.after(cursor, int)
        query = select(AuditRow).order_by(AuditRow.sequence.desc()).limit(limit + 1)
        if action is not None:
            query = query.where(AuditRow.action == action)
        if before is not None:
            query = query.where(AuditRow.sequence < before)
        with self._database.reading() as session:
            rows = session.scalars(query).all()
            return listing.page(rows, lambda row: row.sequence, _event)

    def sequence(self) -> int:
        """Number of the last event, 0 where there is none."""
        with self._database.reading() as session:
            return session.scalars(select(AuditHeadRow.sequence)).one_or_none() or 0

    def last_change(self) -> int:
        """Number of the last event that changed the registry; costs one small query.

        As long as it stays the same, every name of a direction, profile or alias means the same.
        """
        with self._database.reading() as session:
            return session.scalars(select(AuditHeadRow.last_change)).one_or_none() or 0

    @property
    def changes(self) -> int:
        """How often this process has changed the registry; asks nothing of the database."""
        return self._changes

    def _has_changed(self, _session: Session) -> None:
        with self._lock:
            self._changes += 1

    def verify(self) -> int:
        """Recompute the chain; returns the number of events.

        Raises:
            AuditTamperedError: An event was changed, removed or inserted; names the first.
        """
        with self._database.reading() as session:
            head = session.get(AuditHeadRow, 1)
            end = (0, _GENESIS) if head is None else (head.sequence, head.hash)
            sequence, previous = 0, _GENESIS
            # Events after the head that was read are those of writers since.
            while rows := _after(session, sequence, up_to=max(end[0], 1)):
                for row in rows:
                    sequence += 1
                    fits = row.sequence == sequence and row.previous_hash == previous
                    if not fits or row.hash != _hash(row):
                        raise _tampered(sequence)
                    previous = row.hash
                session.expunge_all()
        if end != (sequence, previous):
            raise _tampered(sequence + 1)
        return sequence


def _after(session: Session, sequence: int, *, up_to: int) -> Sequence[AuditRow]:
    query = select(AuditRow).where(AuditRow.sequence > sequence, AuditRow.sequence <= up_to)
    return session.scalars(query.order_by(AuditRow.sequence).limit(_BATCH)).all()


def _tampered(sequence: int) -> AuditTamperedError:
    return AuditTamperedError(
        f"audit event {sequence} is missing or was changed after it was written; compare the "
        "database with a backup",
        sequence=sequence,
    )


def _hash(row: AuditRow) -> str:
    return json_digest(
        [
            row.sequence,
            row.at.isoformat(timespec="microseconds"),
            row.key_id,
            row.request_id,
            row.address,
            row.action,
            row.subject,
            row.before,
            row.after,
            row.detail,
            row.previous_hash,
        ]
    )


def _event(row: AuditRow) -> AuditEvent:
    return AuditEvent(
        sequence=row.sequence,
        at=row.at,
        actor=Actor(row.key_id, row.request_id, row.address),
        action=row.action,
        subject=row.subject,
        before=row.before,
        after=row.after,
        detail=row.detail,
        previous_hash=row.previous_hash,
        hash=row.hash,
    )
