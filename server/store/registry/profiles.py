"""Versioned profiles: drafts, published versions, and which of them is in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from server.store.audit import Actor, AuditStore
from server.store.clock import WallClock
from server.store.database import Database
from server.store.errors import InUseError, ProfileNotFoundError
from server.store.names import NameKind, check_name, check_requires, check_text, claim
from server.store.page import Listing, Page
from server.store.tables import AliasRow, NameRow, ProfileRow
from steering.documents import Profile
from steering.sites import SitePoint

from .pinning import PinnedProfile, pin
from .records import ProfileRecord, ProfileStatus, SaveResult
from .version_table import VersionTable

_MAX_DESCRIPTION_LENGTH: Final = 2000
_IS_PUBLISHED: Final = ProfileRow.published_at.is_not(None)
_OF_STATUS: Final = {
    None: (),
    ProfileStatus.DRAFT: (ProfileRow.published_at.is_(None),),
    ProfileStatus.PUBLISHED: (_IS_PUBLISHED,),
}


@dataclass(frozen=True, slots=True)
class _Draft:
    """The arguments of one call of `save`, checked."""

    profile: Profile
    by: Actor
    model_fingerprint: str | None
    resid_norms: Mapping[SitePoint, float]
    publish: bool
    needed: frozenset[str]


class ProfileStore:
    """Profiles by name and version. Thread-safe."""

    def __init__(self, database: Database, audit: AuditStore, clock: WallClock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._versions = VersionTable(
            database, NameKind.PROFILE, ProfileRow, ProfileRecord.from_row, ProfileRow.directions
        )

    def save(
        self,
        profile: Profile,
        *,
        by: Actor,
        model_fingerprint: str | None = None,
        resid_norms: Mapping[SitePoint, float] | None = None,
        needed: Iterable[str] = (),
        publish: bool = False,
        expected: str | None = None,
    ) -> SaveResult[ProfileRecord]:
        """Store a profile under its name, as the next version, with its directions pinned.

        The newest version is returned instead where it holds the same document (and is published
        then, if asked).

        Args:
            profile: Its `version` is ignored; unversioned directions mean their newest version.
            by: Recorded in the audit log.
            model_fingerprint: Model it was checked against.
            resid_norms: Norms of the points where `resid` interventions act; frozen with it.
            needed: Permissions to ask of keys beside the profile's own and those that its
                directions are known to ask for.
            publish: Make the version available by the profile's name at once.
            expected: The name's etag, `"*"` for any; None for no condition.

        Raises:
            DirectionNotFoundError: A direction does not exist or is archived.
            InvalidFieldError: Name, description or required permissions are not allowed.
            NameReservedError: The name is kept by the server.
            NameTakenError: An alias has the name.
            PreconditionFailedError: The name was changed since `expected`.
        """
        check_name(profile.name)
        check_requires(profile.requires)
        check_text(profile.description, param="description", max_length=_MAX_DESCRIPTION_LENGTH)
        draft = _Draft(
            profile, by, model_fingerprint, resid_norms or {}, publish, frozenset(needed)
        )
        return self._database.write(lambda session: self._save(session, draft, expected))

    def publish(
        self,
        name: str,
        version: int | None = None,
        *,
        by: Actor,
        expected: str | None = None,
    ) -> ProfileRecord:
        """Publish a version, or the newest listed one; no effect where it is published already.

        Raises:
            ProfileNotFoundError: No such listed version.
            PreconditionFailedError: The name was changed since `expected`.
        """

        def work(session: Session) -> ProfileRecord:
            row = session.scalars(_listed(name, version).limit(1)).first()
            if row is None:
                raise _not_found(name, version)
            claimed = claim(session, NameKind.PROFILE, name, expected)
            session.refresh(row, with_for_update=True)
            if row.archived_at is not None:
                raise _not_found(name, version)
            self._publish(session, row, claimed, by)
            return ProfileRecord.from_row(row, claimed.revision)

        return self._database.write(work)

    def get(
        self,
        name: str,
        version: int | None = None,
        *,
        include_drafts: bool = False,
        include_archived: bool = False,
    ) -> ProfileRecord:
        """A version (draft or not), or the newest published one.

        `include_drafts` lets a draft be the newest; `include_archived` finds archived versions.

        Raises:
            ProfileNotFoundError: There is none.
        """
        where = () if include_drafts or version is not None else (_IS_PUBLISHED,)
        record = self._versions.find(name, version, *where, include_archived=include_archived)
        if record is None:
            raise _not_found(name, version)
        return record

    def list(
        self, cursor: str | None = None, limit: int = 50, *, status: ProfileStatus | None = None
    ) -> Page[ProfileRecord]:
        """The newest listed version of each name, by name; with `status`, the newest of that kind.

        Raises:
            InvalidCursorError: Another listing gave out the cursor.
        """
        listing = Listing("profiles", (status,), limit)
        return self._versions.newest(listing, cursor, among=_OF_STATUS[status])

    def versions(
        self,
        name: str,
        cursor: str | None = None,
        limit: int = 50,
        *,
        include_archived: bool = False,
    ) -> Page[ProfileRecord]:
        """Versions of a name, newest first.

        Raises:
            ProfileNotFoundError: No version at all.
            InvalidCursorError: Another listing gave out the cursor.
        """
        page = self._versions.versions(name, cursor, limit, include_archived)
        if not page.items and cursor is None:
            raise _not_found(name, None)
        return page

    def archive(
        self,
        name: str,
        version: int | None = None,
        *,
        by: Actor,
        expected: str | None = None,
    ) -> tuple[ProfileRecord, ...]:
        """Take a version, or all of them, out of use by name; running requests keep theirs.

        Raises:
            ProfileNotFoundError: No such listed version.
            InUseError: An alias would point nowhere; nothing is archived.
            PreconditionFailedError: The name was changed since `expected`.
        """
        return self._database.write(
            lambda session: self._archive(session, name, version, by, expected)
        )

    def _save(
        self, session: Session, draft: _Draft, expected: str | None
    ) -> SaveResult[ProfileRecord]:
        name = claim(session, NameKind.PROFILE, draft.profile.name, expected)
        pinned = pin(session, draft.profile, draft.resid_norms, draft.needed)
        query = select(ProfileRow).where(ProfileRow.name == name.name)
        newest = session.scalars(query.order_by(ProfileRow.version.desc()).limit(1)).first()
        if newest is not None and _is_same(newest, pinned, draft.model_fingerprint):
            if draft.publish:
                self._publish(session, newest, name, draft.by)
            return SaveResult(ProfileRecord.from_row(newest, name.revision), created=False)
        row = ProfileRow(
            name=name.name,
            version=1 if newest is None else newest.version + 1,
            document=pinned.profile.to_dict(),
            fingerprint=pinned.fingerprint,
            model_fingerprint=draft.model_fingerprint,
            requires=list(pinned.requires),
            resid_norms=dict(pinned.resid_norms),
            created_at=self._clock(),
            created_by=draft.by.key_id,
            directions=list(pinned.directions),
        )
        session.add(row)
        name.revision += 1
        session.flush()
        subject = f"profile {row.name}@{row.version}"
        self._audit.record(session, "profile.create", subject, by=draft.by, after=row.fingerprint)
        if draft.publish:
            self._publish(session, row, name, draft.by)
        return SaveResult(ProfileRecord.from_row(row, name.revision), created=True)

    def _publish(self, session: Session, row: ProfileRow, name: NameRow, by: Actor) -> None:
        if row.published_at is not None:
            return
        row.published_at = self._clock()
        name.revision += 1
        session.flush()
        subject = f"profile {row.name}@{row.version}"
        self._audit.record(session, "profile.publish", subject, by=by, after=row.fingerprint)

    def _archive(
        self, session: Session, name: str, version: int | None, by: Actor, expected: str | None
    ) -> tuple[ProfileRecord, ...]:
        query = _listed(name, version)
        if session.scalars(query.limit(1)).first() is None:
            raise _not_found(name, version)
        claimed = claim(session, NameKind.PROFILE, name, expected)
        rows = session.scalars(query.with_for_update()).all()
        for row in rows:
            row.archived_at = self._clock()
        claimed.revision += 1
        session.flush()
        _require_unaliased(session, name, rows)
        for row in rows:
            subject = f"profile {row.name}@{row.version}"
            self._audit.record(session, "profile.archive", subject, by=by, before=row.fingerprint)
        return tuple(ProfileRecord.from_row(row, claimed.revision) for row in rows)


def _listed(name: str, version: int | None) -> Select[ProfileRow]:
    """Versions that are not archived, newest first."""
    query = select(ProfileRow).where(ProfileRow.name == name, ProfileRow.archived_at.is_(None))
    if version is not None:
        query = query.where(ProfileRow.version == version)
    return query.order_by(ProfileRow.version.desc())


def _is_same(row: ProfileRow, pinned: PinnedProfile, model_fingerprint: str | None) -> bool:
    return (
        row.archived_at is None
        and row.document == pinned.profile.to_dict()
        and row.resid_norms == pinned.resid_norms
        and row.requires == list(pinned.requires)
        and row.model_fingerprint == model_fingerprint
    )


def _require_unaliased(session: Session, name: str, archived: Sequence[ProfileRow]) -> None:
    """Aliases of `name` must still lead somewhere once `archived` are."""
    published = _listed(name, None).where(_IS_PUBLISHED).limit(1)
    aimed: ColumnElement[bool] = AliasRow.profile_version.in_([row.version for row in archived])
    if session.scalars(published).first() is None:
        aimed = or_(aimed, AliasRow.profile_version.is_(None))
    query = select(AliasRow.name).where(AliasRow.profile_name == name, aimed)
    aliases = session.scalars(query.order_by(AliasRow.name)).all()
    if aliases:
        raise InUseError(
            f"profile {name!r} is used by the aliases {', '.join(aliases)}; move or delete them "
            "first",
            users=aliases,
            param="name",
        )


def _not_found(name: str, version: int | None) -> ProfileNotFoundError:
    wanted = f"no published profile {name!r}" if version is None else f"no profile {name}@{version}"
    return ProfileNotFoundError(
        f"there is {wanted}; GET /v1/steering/profiles lists those there are", param="name"
    )
