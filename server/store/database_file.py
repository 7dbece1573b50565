"""SQLite's file, watched for being taken away under an open database."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from sqlalchemy import URL

from .errors import StoreReplacedError

__all__ = ["DatabaseFile"]


class DatabaseFile:
    """A file that is known by its device and inode.

    SQLite goes on with a file that was removed or replaced as if nothing had happened, and what it
    writes is gone once the last connection is closed.

    Args:
        path: It need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = self._look()

    @classmethod
    def of(cls, url: URL) -> Self | None:
        """The file of a database; None where it has none."""
        name = url.database
        if url.get_backend_name() != "sqlite" or not name or name.startswith((":memory:", "file:")):
            return None
        return cls(Path(name))

    def check(self) -> None:
        """Make sure that the file is still the one it was.

        Raises:
            StoreReplacedError: It is gone, or another is in its place.
        """
        found = self._look()
        if self._identity is None:
            self._identity = found
        elif found != self._identity:
            raise StoreReplacedError(
                "the database's file was removed or replaced while the server ran, and what is "
                "written now would be lost; put the file back, or restart the server to use the "
                "one that is there"
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino
