"""Tensors in a directory of this machine, or one that several share."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from server.store.errors import InsufficientStorageError, StoreUnavailableError

from .blobs import DIGEST_PATTERN, Blob, corrupt

DEFAULT_LOW_WATER_BYTES: Final = 256 * 1024 * 1024
"""Free space that uploads leave untouched, so that the database and the logs can go on."""

_CHUNK_BYTES: Final = 1 << 20
_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class BlobDirectory:
    """A `BlobStore` of files on disk.

    A blob is written to a temporary file beside its place, synchronised, renamed, and the
    directory synchronised. A file under a final name is therefore complete, also after `kill -9`
    or a power cut; what an interrupted write leaves is a `*.tmp` file that `sweep` removes.
    """

    def __init__(self, directory: Path, low_water_bytes: int = DEFAULT_LOW_WATER_BYTES) -> None:
        """Keep blobs in `directory`, created if absent, and leave `low_water_bytes` free."""
        self._directory = directory
        self._quarantine = directory / "quarantine"
        self._low_water_bytes = low_water_bytes
        self._quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, content: bytes) -> str:
        """Store `content` and return its SHA-256; repairs a damaged file.

        Raises:
            InsufficientStorageError: It would leave less than the low-water mark free.
            StoreUnavailableError: The directory cannot be written, for another reason than space.
        """
        digest = hashlib.sha256(content).hexdigest()
        if self.is_intact(digest):
            return digest
        try:
            self._require_room(len(content))
            self._write(digest, content)
        except OSError as error:
            if error.errno in _FULL_ERRORS:
                raise _insufficient(len(content)) from error
            raise StoreUnavailableError(
                f"artifacts cannot be written ({error}); check the server's data directory"
            ) from error
        return digest

    def read(self, digest: str) -> bytes:
        """The content stored as `digest`; a file that cannot be read counts as damaged."""
        try:
            content = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise corrupt(digest, "its file is missing") from None
        except OSError as error:
            raise corrupt(digest, f"its file cannot be read ({error.strerror})") from error
        got = hashlib.sha256(content).hexdigest()
        if got != digest:
            raise corrupt(digest, f"its file has SHA-256 {got}")
        return content

    def contains(self, digest: str) -> bool:
        return self._path(digest).exists()

    def is_intact(self, digest: str) -> bool:
        state = hashlib.sha256()
        try:
            with self._path(digest).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    state.update(chunk)
        except OSError:
            return False
        return state.hexdigest() == digest

    def list(self) -> Iterator[Blob]:
        for path in self._directory.iterdir():
            if DIGEST_PATTERN.fullmatch(path.name) is None:
                continue
            with suppress(FileNotFoundError):  # collected, or quarantined, meanwhile
                status = path.stat()
                stored_at = datetime.fromtimestamp(status.st_mtime, UTC)
                yield Blob(path.name, status.st_size, stored_at)

    def remove(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)
        self._sync_directory()

    def quarantine(self, digest: str) -> None:
        """Move a damaged file into the folder `quarantine`."""
        with suppress(FileNotFoundError):
            os.replace(self._path(digest), self._quarantine / digest)

    def sweep(self, *, dry_run: bool = False) -> int:
        """Remove temporary files without a live writer, who would hold a lock; returns how many."""
        found = self._directory.glob("*.tmp")
        return sum(_is_abandoned(path, remove=not dry_run) for path in found)

    def has_room(self, size_bytes: int = 0) -> bool:
        """Whether a blob of `size_bytes` would leave the low-water mark untouched."""
        free = shutil.disk_usage(self._directory).free
        return free - size_bytes >= self._low_water_bytes

    def _require_room(self, size_bytes: int) -> None:
        if not self.has_room(size_bytes):
            raise _insufficient(size_bytes)

    def _write(self, digest: str, content: bytes) -> None:
        path = self._directory / f"{digest}.{os.urandom(8).hex()}.tmp"
        descriptor = _create_locked(path)
        try:
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[os.write(descriptor, remaining) :]
            os.fsync(descriptor)
            os.replace(path, self._path(digest))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self._sync_directory()

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _path(self, digest: str) -> Path:
        assert DIGEST_PATTERN.fullmatch(digest), "not a SHA-256"
        return self._directory / digest


def _create_locked(path: Path) -> int:
    """A new file, locked so that another server's sweep sees that its writer lives."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # swept between its creation and its lock


def _is_abandoned(path: Path, *, remove: bool) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _insufficient(size_bytes: int) -> InsufficientStorageError:
    return InsufficientStorageError(
        f"there is no room for an artifact of {size_bytes:,} bytes; free space on the server's "
        "data directory, then upload again"
    )
