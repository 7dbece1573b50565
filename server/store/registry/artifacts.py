"""Keeping the files of tensors in step with the rows that name them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.store.blobs.blobs import Blob, BlobStore
from server.store.clock import WallClock
from server.store.database import Database, serialize
from server.store.errors import ConflictError
from server.store.tables import DirectionRow

DEFAULT_GRACE: Final = timedelta(hours=24)
"""Age below which a file without a row counts as an upload in progress."""


@dataclass(frozen=True, slots=True)
class ArtifactCheck:
    """The findings of `Artifacts.check`.

    Attributes:
        num_blobs: Number of files that rows name, each read and hashed.
        damaged: Digests of files with other content, and the directions they hold.
        missing: Digests of files that are not there, and the directions they held.
        orphans: Files that no row names, of any age.
        num_temporary: Number of files that dead writers left.
    """

    num_blobs: int
    damaged: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, tuple[str, ...]]
    orphans: tuple[Blob, ...]
    num_temporary: int

    @property
    def is_sound(self) -> bool:
        """Whether every direction, archived ones too, can be read back as it was uploaded."""
        return not self.damaged and not self.missing


@dataclass(frozen=True, slots=True)
class Collected:
    """The files that `Artifacts.collect` removed, or would have removed in a dry run.

    Attributes:
        orphans: Files that no row names.
        num_temporary: Number of files that dead writers left.
        num_spared: Number of orphans too young to be removed.
    """

    orphans: tuple[Blob, ...]
    num_temporary: int
    num_spared: int


class Artifacts:
    """Finds files that are damaged or that nobody needs. Safe beside running servers."""

    def __init__(self, database: Database, blobs: BlobStore, clock: WallClock) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock

    def check(self) -> ArtifactCheck:
        """Hash every file that a row names; changes nothing."""
        stored = list(self._blobs.list())  # before the rows: one that comes later has its file
        holders = self._holders()
        damaged: dict[str, tuple[str, ...]] = {}
        missing: dict[str, tuple[str, ...]] = {}
        for digest, directions in sorted(holders.items()):
            if not self._blobs.is_intact(digest):
                found = damaged if self._blobs.contains(digest) else missing
                found[digest] = directions
        return ArtifactCheck(
            num_blobs=len(holders),
            damaged=damaged,
            missing=missing,
            orphans=tuple(blob for blob in stored if blob.digest not in holders),
            num_temporary=self._blobs.sweep(dry_run=True),
        )

    def collect(self, grace: timedelta = DEFAULT_GRACE, *, dry_run: bool = False) -> Collected:
        """Remove orphans that are older than `grace`, and what dead writers left.

        An upload whose row is not written yet is never lost, whatever `grace` is: its transaction
        stores the file again where it has gone. The grace only spares it from doing so.

        Raises:
            ConflictError: No row names any of the files: this is not the database they belong to.
        """
        stored = list(self._blobs.list())
        holders = self._holders()
        if stored and not any(blob.digest in holders for blob in stored):
            raise ConflictError(
                f"the database names none of the {len(stored)} stored artifacts, so it is probably "
                "not the one they belong to; give the settings the server runs with"
            )
        orphans = [blob for blob in stored if blob.digest not in holders]
        newest = self._clock() - grace
        old = [blob for blob in orphans if blob.stored_at <= newest]
        removed = old if dry_run else [blob for blob in old if self._remove(blob.digest)]
        return Collected(
            orphans=tuple(removed),
            num_temporary=self._blobs.sweep(dry_run=dry_run),
            num_spared=len(orphans) - len(old),
        )

    def _holders(self) -> dict[str, tuple[str, ...]]:
        """Directions by digest of their file; archived ones too, whose bytes stay readable."""
        query = select(DirectionRow.sha256, DirectionRow.name, DirectionRow.version)
        query = query.order_by(DirectionRow.name, DirectionRow.version)
        found = defaultdict(list)
        with self._database.reading() as session:
            for digest, name, version in session.execute(query):
                found[digest].append(f"{name}@{version}")
        return {digest: tuple(directions) for digest, directions in found.items()}

    def _remove(self, digest: str) -> bool:
        """Remove a file unless a row has come to name it."""

        def work(session: Session) -> bool:
            serialize(session, digest)
            query = select(DirectionRow.id).where(DirectionRow.sha256 == digest).limit(1)
            if session.scalars(query).first() is not None:
                return False
            self._blobs.remove(digest)
            return True

        return self._database.write(work)
