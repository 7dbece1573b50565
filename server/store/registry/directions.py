"""Versioned directions: a row for each version, a blob for its tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from server.store.audit import Actor, AuditStore
from server.store.blobs.blobs import BlobStore
from server.store.canonical import canonical_json, json_digest
from server.store.clock import WallClock
from server.store.database import Database, serialize
from server.store.errors import CorruptArtifactError, DirectionNotFoundError, InUseError
from server.store.names import NameKind, check_name, check_requires, check_text, claim
from server.store.page import Listing, Page
from server.store.tables import DirectionRow, DirectionTagRow, ProfileDirectionRow, ProfileRow
from steering.directions import Direction, DirectionKind
from steering.errors import InvalidFieldError, SteeringError
from steering.sites import Site

from .records import DirectionRecord, SaveResult
from .version_table import VersionTable

DirectionLoader = Callable[[bytes, DirectionRecord], Direction]
"""Reads a blob into a direction; given in by the application, so that the store knows no format."""

_MAX_TAG_LENGTH = 64


@dataclass(frozen=True, slots=True)
class _Upload:
    """The arguments of one call of `put`, checked."""

    direction: Direction
    identity: str
    sha256: str
    blob: bytes
    by: Actor


class DirectionStore:
    """Directions by name and version. Thread-safe."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        audit: AuditStore,
        clock: WallClock,
        load: DirectionLoader | None = None,
    ) -> None:
        """Keep rows in a database and tensors in `blobs`; the method `load` needs a loader."""
        self._database = database
        self._blobs = blobs
        self._audit = audit
        self._clock = clock
        self._load = load
        self._versions = VersionTable(
            database, NameKind.DIRECTION, DirectionRow, DirectionRecord.from_row, DirectionRow.tags
        )

    def put(
        self, direction: Direction, blob: bytes, *, by: Actor, expected: str | None = None
    ) -> SaveResult[DirectionRecord]:
        """Store a direction under its name, as the next version.

        A listed version with the same tensors, kind, site, layers, model and required permissions
        is returned instead, whichever it is; tags and provenance do not count, and the old ones
        stay. A quarantined version is repaired by the same tensors, in whichever file they come.

        Args:
            direction: Its `version` is ignored.
            blob: The file to give back byte by byte; it must hold `direction`.
            by: Recorded in the audit log.
            expected: The name's etag, `"*"` for any; None for no condition.

        Raises:
            InvalidFieldError: Name, tags, provenance or required permissions are not allowed.
            NameReservedError: The name is kept by the server.
            PreconditionFailedError: The name was changed since `expected`.
            InsufficientStorageError: No room; nothing was stored.
        """
        check_name(direction.name)
        check_requires(direction.requires, of_direction=True)
        _check_labels(direction)
        sha256 = self._blobs.put(blob)
        upload = _Upload(direction, _identity(direction), sha256, blob, by)
        return self._database.write(lambda session: self._put(session, upload, expected))

    def get(
        self, name: str, version: int | None = None, *, include_archived: bool = False
    ) -> DirectionRecord:
        """A version, or the newest listed one.

        Raises:
            DirectionNotFoundError: There is none.
        """
        record = self._versions.find(name, version, include_archived=include_archived)
        if record is None:
            raise _not_found(name, version)
        return record

    def read(self, record: DirectionRecord) -> bytes:
        """The file of a version, as uploaded.

        Raises:
            CorruptArtifactError: It is missing or damaged.
        """
        return self._blobs.read(record.sha256)

    def load(self, record: DirectionRecord) -> Direction:
        """The direction of a version, with its tensors.

        Raises:
            CorruptArtifactError: The file is missing, damaged, cannot be read any more or holds
                another direction.
        """
        assert self._load is not None, "the store was opened without a loader"
        try:
            direction = self._load(self.read(record), record)
        except SteeringError as error:  # it was taken in once: no mistake of who asks for it now
            raise CorruptArtifactError(
                f"the file of direction {record.reference} cannot be read any more: {error}; "
                "upload the direction again"
            ) from error
        if direction.digest != record.digest:
            raise CorruptArtifactError(
                f"the file of direction {record.reference} holds tensors with digest "
                f"{direction.digest[:12]}, expected {record.digest[:12]}; upload it again"
            )
        return direction

    def list(
        self,
        cursor: str | None = None,
        limit: int = 50,
        *,
        kind: DirectionKind | None = None,
        site: Site | None = None,
        tag: str | None = None,
    ) -> Page[DirectionRecord]:
        """The newest listed version of each name, by name; filters look at that version.

        Raises:
            InvalidCursorError: Another listing gave out the cursor.
        """
        where: list[ColumnElement[bool]] = []
        if kind is not None:
            where.append(DirectionRow.kind == kind.value)
        if site is not None:
            where.append(DirectionRow.site == site.value)
        if tag is not None:
            where.append(DirectionRow.tags.any(DirectionTagRow.tag == tag))
        listing = Listing("directions", (kind, site, tag), limit)
        return self._versions.newest(listing, cursor, where=tuple(where))

    def versions(
        self,
        name: str,
        cursor: str | None = None,
        limit: int = 50,
        *,
        include_archived: bool = False,
    ) -> Page[DirectionRecord]:
        """Versions of a name, newest first.

        Raises:
            DirectionNotFoundError: No version at all.
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
    ) -> tuple[DirectionRecord, ...]:
        """Take a version, or all of them, out of every listing; the bytes stay readable.

        Raises:
            DirectionNotFoundError: No such listed version.
            InUseError: A listed profile version uses one of them; nothing is archived.
            PreconditionFailedError: The name was changed since `expected`.
        """
        return self._database.write(
            lambda session: self._archive(session, name, version, by, expected)
        )

    def _put(
        self, session: Session, upload: _Upload, expected: str | None
    ) -> SaveResult[DirectionRecord]:
        name = claim(session, NameKind.DIRECTION, upload.direction.name, expected)
        self._hold(session, upload)
        self._repair(session, upload)
        query = select(DirectionRow).where(DirectionRow.name == name.name)
        rows = session.scalars(query.order_by(DirectionRow.version)).all()
        for row in rows:
            if row.archived_at is None and row.identity == upload.identity:
                return SaveResult(DirectionRecord.from_row(row, name.revision), created=False)
        row = self._new_row(upload, rows[-1].version + 1 if rows else 1)
        session.add(row)
        name.revision += 1
        session.flush()
        subject = f"direction {row.name}@{row.version}"
        self._audit.record(session, "direction.create", subject, by=upload.by, after=row.digest)
        return SaveResult(DirectionRecord.from_row(row, name.revision), created=True)

    def _hold(self, session: Session, upload: _Upload) -> None:
        """Keep the blob from being collected before its row is there; store it again if it was."""
        serialize(session, upload.sha256)
        if not self._blobs.contains(upload.sha256):
            self._blobs.put(upload.blob)

    def _repair(self, session: Session, upload: _Upload) -> None:
        """Lift the quarantine of versions that this file, or these tensors, make whole again."""
        same_file = DirectionRow.sha256 == upload.sha256
        same_tensors = and_(
            DirectionRow.name == upload.direction.name, DirectionRow.identity == upload.identity
        )
        query = select(DirectionRow).where(
            DirectionRow.quarantined_at.is_not(None), or_(same_file, same_tensors)
        )
        for row in session.scalars(query).all():
            before, row.sha256, row.size_bytes = row.sha256, upload.sha256, len(upload.blob)
            row.quarantined_at = None
            subject = f"direction {row.name}@{row.version}"
            self._audit.record(
                session, "direction.repair", subject, by=upload.by, before=before, after=row.sha256
            )

    def _new_row(self, upload: _Upload, version: int) -> DirectionRow:
        direction = upload.direction
        return DirectionRow(
            name=direction.name,
            version=version,
            kind=direction.kind.value,
            site=direction.site.value,
            layers=list(direction.layers),
            width=direction.width,
            norms=_tensor_norms(direction),
            sha256=upload.sha256,
            size_bytes=len(upload.blob),
            digest=direction.digest,
            identity=upload.identity,
            model_fingerprint=direction.model_fingerprint,
            requires=sorted(set(direction.requires)),
            provenance=dict(direction.provenance),
            created_at=self._clock(),
            created_by=upload.by.key_id,
            tags=[DirectionTagRow(tag=tag) for tag in sorted(set(direction.tags))],
        )

    def _archive(
        self,
        session: Session,
        name: str,
        version: int | None,
        by: Actor,
        expected: str | None,
    ) -> tuple[DirectionRecord, ...]:
        query = select(DirectionRow).where(
            DirectionRow.name == name, DirectionRow.archived_at.is_(None)
        )
        if version is not None:
            query = query.where(DirectionRow.version == version)
        if session.scalars(query.limit(1)).first() is None:
            raise _not_found(name, version)
        claimed = claim(session, NameKind.DIRECTION, name, expected)
        # The lock makes a profile that is being saved with one of these wait, or be seen below.
        rows = session.scalars(query.order_by(DirectionRow.version).with_for_update()).all()
        _require_unused(session, name, rows)
        claimed.revision += 1
        for row in rows:
            row.archived_at = self._clock()
        session.flush()
        for row in rows:
            subject = f"direction {row.name}@{row.version}"
            self._audit.record(session, "direction.archive", subject, by=by, before=row.digest)
        return tuple(DirectionRecord.from_row(row, claimed.revision) for row in rows)


def _require_unused(session: Session, name: str, rows: Sequence[DirectionRow]) -> None:
    query = (
        select(ProfileRow.name, ProfileRow.version)
        .join(ProfileDirectionRow, ProfileDirectionRow.profile_id == ProfileRow.id)
        .where(
            ProfileDirectionRow.direction_id.in_([row.id for row in rows]),
            ProfileRow.archived_at.is_(None),
        )
        .distinct()
        .order_by(ProfileRow.name, ProfileRow.version)
    )
    users = [f"{profile}@{version}" for profile, version in session.execute(query)]
    if users:
        raise InUseError(
            f"direction {name!r} is used by {', '.join(users)}; archive these profile versions "
            "first",
            users=users,
            param="name",
        )


def _identity(direction: Direction) -> str:
    """Digest of what makes two uploads one version: the tensors, their model, who may use them."""
    requires = sorted(set(direction.requires))
    return json_digest([direction.digest, direction.model_fingerprint, requires])


def _tensor_norms(direction: Direction) -> dict[str, float]:
    """L2 (Frobenius) norm of each tensor as stored, computed in float64."""
    return {name: float(t.double().norm()) for name, t in sorted(direction.tensors.items())}


def _check_labels(direction: Direction) -> None:
    for index, tag in enumerate(direction.tags):
        check_text(tag, param=f"tags[{index}]", max_length=_MAX_TAG_LENGTH)
    try:
        canonical_json(dict(direction.provenance))
    except (TypeError, ValueError) as error:
        raise InvalidFieldError(f"provenance is not JSON: {error}", param="provenance") from None


def _not_found(name: str, version: int | None) -> DirectionNotFoundError:
    wanted = name if version is None else f"{name}@{version}"
    return DirectionNotFoundError(
        f"there is no direction {wanted!r}; GET /v1/steering/directions lists those there are",
        param="name",
    )
