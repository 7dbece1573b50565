"""Names that move between profile versions, and the choice of a profile by any name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from server.store.audit import Actor, AuditStore
from server.store.clock import WallClock
from server.store.database import Database
from server.store.errors import (
    AliasNotFoundError,
    NotPublishedError,
    ProfileNotFoundError,
    ProfileUnavailableError,
)
from server.store.names import NameKind, check_name, claim
from server.store.page import Listing, Page
from server.store.tables import AliasRow, NameRow, ProfileRow
from steering.documents import DirectionRef

from .profiles import ProfileStore
from .records import ProfileRecord


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """An alias and its target.

    Attributes:
        name: The alias.
        profile_name: Name of a profile, never of another alias.
        profile_version: Version of the profile; None follows the newest published one.
        created_at: UTC.
        updated_at: UTC, of the last move.
        updated_by: Id of the key that moved it.
        etag: Revision, changed by every move.
    """

    name: str
    profile_name: str
    profile_version: int | None
    created_at: datetime
    updated_at: datetime
    updated_by: str | None
    etag: str

    @property
    def target(self) -> str:
        """`profile` or `profile@version`."""
        return _target(self.profile_name, self.profile_version)


class AliasStore:
    """Aliases by name. Thread-safe."""

    def __init__(
        self, database: Database, profiles: ProfileStore, audit: AuditStore, clock: WallClock
    ) -> None:
        self._database = database
        self._profiles = profiles
        self._audit = audit
        self._clock = clock

    def put(
        self,
        name: str,
        profile_name: str,
        profile_version: int | None = None,
        *,
        by: Actor,
        expected: str | None = None,
    ) -> AliasRecord:
        """Make an alias, or move it; requests see the old target or the new one, never neither.

        Raises:
            InvalidFieldError: The name is not allowed.
            NameReservedError: The name is kept by the server.
            NameTakenError: A profile has the name.
            ProfileNotFoundError: The target does not exist.
            NotPublishedError: The target is a draft.
            PreconditionFailedError: The alias was moved since `expected`.
        """
        check_name(name, param="alias")

        def work(session: Session) -> AliasRecord:
            claimed = claim(session, NameKind.ALIAS, name, expected)
            _require_published(session, profile_name, profile_version)
            row = session.get(AliasRow, name, with_for_update=True)
            before = None if row is None else _target(row.profile_name, row.profile_version)
            target = _target(profile_name, profile_version)
            if row is not None and before == target:
                return _record(row, claimed.revision)
            now = self._clock()
            if row is None:
                row = AliasRow(name=name, created_at=now)
                session.add(row)
            row.profile_name, row.profile_version = profile_name, profile_version
            row.updated_at, row.updated_by = now, by.key_id
            claimed.revision += 1
            session.flush()
            action = "alias.create" if before is None else "alias.move"
            self._audit.record(session, action, f"alias {name}", by=by, before=before, after=target)
            return _record(row, claimed.revision)

        return self._database.write(work)

    def get(self, name: str) -> AliasRecord:
        """One alias.

        Raises:
            AliasNotFoundError: There is none.
        """
        with self._database.reading() as session:
            found = session.execute(_RECORDS.where(AliasRow.name == name)).first()
            if found is None:
                raise _not_found(name)
            return _record(*found)

    def list(self, cursor: str | None = None, limit: int = 50) -> Page[AliasRecord]:
        """Aliases by name.

        Raises:
            InvalidCursorError: Another listing gave out the cursor.
        """
        listing = Listing("aliases", (), limit)
        after = listing.after(cursor, str)
        query = _RECORDS.order_by(AliasRow.name).limit(limit + 1)
        if after is not None:
            query = query.where(AliasRow.name > after)
        with self._database.reading() as session:
            rows = session.execute(query).all()
            return listing.page(rows, lambda row: row[0].name, lambda row: _record(*row))

    def delete(self, name: str, *, by: Actor, expected: str | None = None) -> None:
        """Remove an alias; its name is free again, also for a profile.

        Raises:
            AliasNotFoundError: There is none.
            PreconditionFailedError: It was moved since `expected`.
        """

        def work(session: Session) -> None:
            if session.get(AliasRow, name) is None:
                raise _not_found(name)
            claimed = claim(session, NameKind.ALIAS, name, expected)
            row = session.get(AliasRow, name, with_for_update=True, populate_existing=True)
            if row is None:
                raise _not_found(name)
            before = _target(row.profile_name, row.profile_version)
            session.delete(row)
            claimed.noun = None
            claimed.revision += 1
            session.flush()
            self._audit.record(session, "alias.delete", f"alias {name}", by=by, before=before)

        self._database.write(work)

    def resolve(self, reference: str) -> ProfileRecord:
        """The profile version that `name`, `name@version` or an alias means.

        Raises:
            InvalidFieldError: Not of that form.
            ProfileNotFoundError: Neither a profile nor an alias, or not that version.
            ProfileUnavailableError: One of its directions is quarantined.
        """
        wanted = DirectionRef.parse(reference, param="profile")
        record = self._resolve(wanted.name, wanted.version)
        if not record.is_available:
            raise ProfileUnavailableError(
                f"profile {record.reference} uses {', '.join(record.unavailable)}, whose stored "
                "file is damaged; upload it again, or choose another profile",
                param="profile",
            )
        return record

    def _resolve(self, name: str, version: int | None) -> ProfileRecord:
        try:
            alias = self.get(name)
        except AliasNotFoundError:
            return self._profiles.get(name, version)
        if version is not None:
            raise ProfileNotFoundError(
                f"profile is '{name}@{version}', but {name!r} is an alias of {alias.target}; "
                "aliases have no versions, so name it without one",
                param="profile",
            )
        return self._profiles.get(alias.profile_name, alias.profile_version)


_RECORDS = select(AliasRow, NameRow.revision).join(
    NameRow, and_(NameRow.space == NameKind.ALIAS.space, NameRow.name == AliasRow.name)
)


def _require_published(session: Session, name: str, version: int | None) -> None:
    """Check and share-lock the target, so that it is not archived at the same time."""
    query = select(ProfileRow).where(ProfileRow.name == name, ProfileRow.archived_at.is_(None))
    if version is not None:
        query = query.where(ProfileRow.version == version)
    rows = session.scalars(query.with_for_update(read=True)).all()
    if not rows:
        raise ProfileNotFoundError(
            f"profile is {_target(name, version)!r}, which does not exist; save and publish it "
            "first",
            param="profile",
        )
    if all(row.published_at is None for row in rows):
        raise NotPublishedError(
            f"profile is {_target(name, version)!r}, a draft; publish it first", param="profile"
        )


def _target(name: str, version: int | None) -> str:
    return name if version is None else f"{name}@{version}"


def _record(row: AliasRow, revision: int) -> AliasRecord:
    return AliasRecord(
        name=row.name,
        profile_name=row.profile_name,
        profile_version=row.profile_version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
        etag=str(revision),
    )


def _not_found(name: str) -> AliasNotFoundError:
    return AliasNotFoundError(
        f"there is no alias {name!r}; GET /v1/steering/aliases lists those there are", param="alias"
    )
