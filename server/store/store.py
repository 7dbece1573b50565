"""Everything that is kept between runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import URL, select
from sqlalchemy.orm import Session

from .audit import SYSTEM, AuditStore
from .blobs.blobs import BlobStore
from .blobs.directory import DEFAULT_LOW_WATER_BYTES
from .blobs.location import open_blobs
from .clock import WallClock, utc_now
from .database import Database, upgrade
from .errors import AuditTamperedError
from .idempotency import IdempotencyStore
from .jobs.jobs import JobStore
from .keys.keys import KeyStore
from .registry.aliases import AliasStore
from .registry.artifacts import Artifacts
from .registry.directions import DirectionLoader, DirectionStore
from .registry.profiles import ProfileStore
from .tables import DirectionRow, ProfileDirectionRow, ProfileRow


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """The findings of `Store.verify`.

    Attributes:
        num_blobs: Number of files read and hashed.
        directions: Listed directions whose file is missing or damaged, as `name@version`.
        profiles: Listed profiles that use one of them, as `name@version`.
        audit_fault: The fault of the audit log, or None.
    """

    num_blobs: int
    directions: tuple[str, ...]
    profiles: tuple[str, ...]
    audit_fault: str | None

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.directions and self.audit_fault is None


@dataclass(frozen=True, slots=True)
class Store:
    """The stores of one data directory and one database; they share transactions and audit.

    Several servers may share both: the database then is PostgreSQL, the directory a shared one or
    an object store.
    """

    database: Database
    blobs: BlobStore
    artifacts: Artifacts
    audit: AuditStore
    directions: DirectionStore
    profiles: ProfileStore
    aliases: AliasStore
    keys: KeyStore
    jobs: JobStore
    idempotency: IdempotencyStore
    clock: WallClock

    @classmethod
    def open(
        cls,
        data_dir: Path | str,
        url: str | URL | None = None,
        *,
        artifacts_url: str | None = None,
        load: DirectionLoader | None = None,
        low_water_bytes: int = DEFAULT_LOW_WATER_BYTES,
        clock: WallClock = utc_now,
        sweep: bool = True,
    ) -> Self:
        """Open a store: create the directory, migrate the database, sweep interrupted writes.

        Args:
            data_dir: Holds the artifacts, and the database unless `url` says otherwise.
            url: Address of the database; None means SQLite in `data_dir`.
            artifacts_url: Address of the tensors; None means a folder in `data_dir`.
            load: Reads a blob into a direction; needed by `directions.load` only.
            low_water_bytes: Free space that uploads leave untouched.
            clock: Gives the present time in UTC.
            sweep: Whether to remove what interrupted writes left.

        Raises:
            SchemaError: The database is newer than this server.
            StoreError: `artifacts_url` cannot be used.
            StoreUnavailableError: The database cannot be reached.
        """
        directory = Path(data_dir)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        url = url or URL.create("sqlite", database=str(directory / "coxswain.db"))
        upgrade(url)
        database = Database(url)
        blobs = open_blobs(artifacts_url, directory / "artifacts", low_water_bytes)
        if sweep:
            blobs.sweep()
        audit = AuditStore(database, clock)
        profiles = ProfileStore(database, audit, clock)
        return cls(
            database=database,
            blobs=blobs,
            artifacts=Artifacts(database, blobs, clock),
            audit=audit,
            directions=DirectionStore(database, blobs, audit, clock, load),
            profiles=profiles,
            aliases=AliasStore(database, profiles, audit, clock),
            keys=KeyStore(database, audit, clock),
            jobs=JobStore(database, audit, clock),
            idempotency=IdempotencyStore(database, clock),
            clock=clock,
        )

    def verify(self) -> StoreCheck:
        """Hash every listed artifact again, quarantine what is damaged, recompute the audit chain.

        Profiles that use a quarantined direction become unavailable; a direction whose file is
        whole again becomes available. Reads every artifact: meant for the start.
        """
        with self.database.reading() as session:
            query = select(DirectionRow.sha256).where(DirectionRow.archived_at.is_(None))
            digests = sorted(set(session.scalars(query)))
        damaged = [digest for digest in digests if not self.blobs.is_intact(digest)]
        for digest in damaged:
            self.blobs.quarantine(digest)
        self.database.write(lambda session: self._mark(session, damaged))
        directions, profiles = self._unavailable()
        return StoreCheck(len(digests), directions, profiles, self.audit_fault())

    def audit_fault(self) -> str | None:
        """The fault of the audit log, or None; reads all of it."""
        try:
            self.audit.verify()
        except AuditTamperedError as error:
            return str(error)
        return None

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def _mark(self, session: Session, damaged: list[str]) -> None:
        """Set the quarantine of every listed direction to what was found now."""
        query = select(DirectionRow).where(DirectionRow.archived_at.is_(None))
        for row in session.scalars(query).all():
            is_damaged = row.sha256 in damaged
            if is_damaged == (row.quarantined_at is not None):
                continue
            row.quarantined_at = self.clock() if is_damaged else None
            action = "direction.quarantine" if is_damaged else "direction.restore"
            subject = f"direction {row.name}@{row.version}"
            self.audit.record(session, action, subject, by=SYSTEM, before=row.sha256)

    def _unavailable(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        with self.database.reading() as session:
            bad = (DirectionRow.quarantined_at.is_not(None), DirectionRow.archived_at.is_(None))
            directions = session.execute(
                select(DirectionRow.name, DirectionRow.version)
                .where(*bad)
                .order_by(DirectionRow.name, DirectionRow.version)
            ).all()
            profiles = session.execute(
                select(ProfileRow.name, ProfileRow.version)
                .join(ProfileDirectionRow, ProfileDirectionRow.profile_id == ProfileRow.id)
                .join(DirectionRow, DirectionRow.id == ProfileDirectionRow.direction_id)
                .where(*bad, ProfileRow.archived_at.is_(None))
                .distinct()
                .order_by(ProfileRow.name, ProfileRow.version)
            ).all()
        return (
            tuple(f"{name}@{version}" for name, version in directions),
            tuple(f"{name}@{version}" for name, version in profiles),
        )
