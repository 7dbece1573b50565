"""The interface of a store of tensors: files named by the SHA-256 of their content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from server.store.errors import CorruptArtifactError

DIGEST_PATTERN: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    """One stored file.

    Attributes:
        digest: Its name, the SHA-256 of its content in hexadecimal.
        size_bytes: Size of its content.
        stored_at: UTC, when it was written last.
    """

    digest: str
    size_bytes: int
    stored_at: datetime


class BlobStore(Protocol):
    """Immutable files, written whole or not at all, verified when they are read. Thread-safe.

    Names are digests that the store computes or asserts; no caller's text is ever a path or key.
    Every method may raise StoreUnavailableError where the files are kept elsewhere.
    """

    def put(self, content: bytes) -> str:
        """Store `content`; returns its SHA-256 in hexadecimal. Repairs a damaged file.

        Raises:
            InsufficientStorageError: There is no room. Nothing is left behind.
        """
        ...

    def read(self, digest: str) -> bytes:
        """The content stored as `digest`, verified.

        Raises:
            CorruptArtifactError: The file is missing or its content has another digest.
        """
        ...

    def contains(self, digest: str) -> bool:
        """Whether there is such a file, whatever is in it; reads none of it."""
        ...

    def is_intact(self, digest: str) -> bool:
        """Whether the file is there with the right content; reads all of it."""
        ...

    def list(self) -> Iterator[Blob]:
        """Every file, damaged ones too, in no order; quarantined ones are not among them."""
        ...

    def remove(self, digest: str) -> None:
        """Remove a file; does nothing where there is none."""
        ...

    def quarantine(self, digest: str) -> None:
        """Move a damaged file aside, for people to look at."""
        ...

    def sweep(self, *, dry_run: bool = False) -> int:
        """Remove what dead writers left, and nothing of live ones; returns the number of files."""
        ...


def corrupt(digest: str, reason: str) -> CorruptArtifactError:
    """The error of a file that is not what was uploaded."""
    return CorruptArtifactError(
        f"artifact {digest[:12]} is damaged: {reason}; upload the same file again to repair it"
    )
