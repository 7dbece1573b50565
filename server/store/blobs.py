"""Files named by the SHA-256 of their content."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from .errors import CorruptArtifactError, InsufficientStorageError

__all__ = ["DEFAULT_LOW_WATER_BYTES", "BlobStore"]

DEFAULT_LOW_WATER_BYTES: Final = 256 * 1024 * 1024
"""Free space that uploads leave untouched, so that the database and the logs can go on."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES: Final = 1 << 20
_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class BlobStore:
    """A directory of immutable files, written whole or not at all.

    A blob is written to a temporary file beside its place, synchronised, renamed, and the
    directory synchronised. A file under a final name is therefore complete, also after `kill -9`
    or a power cut; what an interrupted write leaves is a `*.tmp` file that `sweep` removes.
    Names are digests that this class computes or checks; no caller's text is ever a path.
    """

    def __init__(self, directory: Path, low_water_bytes: int = DEFAULT_LOW_WATER_BYTES) -> None:
        """Args: directory: created if absent; low_water_bytes: free space to leave."""
        self._directory = directory
        self._quarantine = directory / "quarantine"
        self._low_water_bytes = low_water_bytes
        self._quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, content: bytes) -> str:
        """Store `content`; returns its SHA-256 in hexadecimal. Repairs a damaged file.

        Raises:
            InsufficientStorageError: No room, or less than the low-water mark would remain.
                Nothing is left behind.
        """
        digest = hashlib.sha256(content).hexdigest()
        if self.is_intact(digest):
            return digest
        self._require_room(len(content))
        try:
            self._write(digest, content)
        except OSError as error:
            if error.errno in _FULL_ERRORS:
                raise _insufficient(len(content)) from error
            raise
        return digest

    def read(self, digest: str) -> bytes:
        """The content stored as `digest`, verified.

        Raises:
            CorruptArtifactError: The file is missing or its content has another digest.
        """
        try:
            content = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise _corrupt(digest, "its file is missing") from None
        except OSError as error:
            raise _corrupt(digest, f"its file cannot be read ({error.strerror})") from error
        got = hashlib.sha256(content).hexdigest()
        if got != digest:
            raise _corrupt(digest, f"its file has SHA-256 {got}")
        return content

    def is_intact(self, digest: str) -> bool:
        """Whether the file is there with the right content; reads all of it."""
        state = hashlib.sha256()
        try:
            with self._path(digest).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    state.update(chunk)
        except OSError:
            return False
        return state.hexdigest() == digest

    def quarantine(self, digest: str) -> None:
        """Move a damaged file aside, for people to look at."""
        with suppress(FileNotFoundError):
            os.replace(self._path(digest), self._quarantine / digest)

    def sweep(self) -> int:
        """Remove what dead writers left, and nothing of live ones; returns the number of files."""
        return sum(_remove_if_abandoned(path) for path in self._directory.glob("*.tmp"))

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
        assert _DIGEST.fullmatch(digest), "not a SHA-256"
        return self._directory / digest


def _create_locked(path: Path) -> int:
    """A new file, locked so that another server's sweep sees that its writer lives."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # swept between its creation and its lock


def _remove_if_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _corrupt(digest: str, reason: str) -> CorruptArtifactError:
    return CorruptArtifactError(
        f"artifact {digest[:12]} is damaged: {reason}; upload the same file again to repair it"
    )
