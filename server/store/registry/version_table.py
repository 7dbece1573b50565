"""Reading directions and profiles, which are stored in immutable versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import InstrumentedAttribute, selectinload

from server.store.database import Database
from server.store.names import NameKind
from server.store.page import Listing, Page
from server.store.tables import NameRow, VersionedRow

_Row = TypeVar("_Row", bound=VersionedRow)
_Record = TypeVar("_Record")


class VersionTable(Generic[_Row, _Record]):
    """The versions of every name of one kind. Thread-safe."""

    def __init__(
        self,
        database: Database,
        kind: NameKind,
        row: type[_Row],
        record: Callable[[_Row, int], _Record],
        related: InstrumentedAttribute[Any],
    ) -> None:
        """Read rows of `row`.

        Args:
            database: Shared with the other stores.
            kind: What the names stand for.
            row: The class of the versions' rows.
            record: Makes a record of a row and the revision of its name.
            related: The relationship that `record` reads besides the row.
        """
        self._database = database
        self._kind = kind
        self._row = row
        self._record = record
        self._related = related

    def find(
        self,
        name: str,
        version: int | None,
        *where: ColumnElement[bool],
        include_archived: bool = False,
    ) -> _Record | None:
        """The newest version of `name` that fulfils `where`, or `version`."""
        query = self._select(include_archived).where(self._row.name == name, *where)
        if version is not None:
            query = query.where(self._row.version == version)
        query = query.order_by(self._row.version.desc()).limit(1)
        with self._database.reading() as session:
            found = session.execute(query).first()
            return None if found is None else self._record(*found)

    def newest(
        self,
        listing: Listing,
        cursor: str | None,
        *,
        among: tuple[ColumnElement[bool], ...] = (),
        where: tuple[ColumnElement[bool], ...] = (),
    ) -> Page[_Record]:
        """The newest listed version of each name, by name.

        `among` narrows the versions of which the newest is taken, and `where` then filters those.

        Raises:
            InvalidCursorError: `listing` did not give out the cursor.
        """
        row = self._row
        newest = (
            select(row.name, func.max(row.version).label("version"))
            .where(row.archived_at.is_(None), *among)
            .group_by(row.name)
            .subquery()
        )
        same = and_(row.name == newest.c.name, row.version == newest.c.version)
        query = self._select(include_archived=False).join(newest, same).where(*where)
        after = listing.after(cursor, str)
        if after is not None:
            query = query.where(row.name > after)
        query = query.order_by(row.name).limit(listing.limit + 1)
        with self._database.reading() as session:
            rows = session.execute(query).all()
            return listing.page(rows, lambda r: r[0].name, lambda r: self._record(*r))

    def versions(
        self, name: str, cursor: str | None, limit: int, include_archived: bool
    ) -> Page[_Record]:
        """Versions of a name, newest first.

        Raises:
            InvalidCursorError: Another listing gave out the cursor.
        """
        filters = (name, str(include_archived))
        listing = Listing(f"{self._kind} versions", filters, limit)
        query = self._select(include_archived).where(self._row.name == name)
        before = listing.after(cursor, int)
        if before is not None:
            query = query.where(self._row.version < before)
        query = query.order_by(self._row.version.desc()).limit(limit + 1)
        with self._database.reading() as session:
            rows = session.execute(query).all()
            return listing.page(rows, lambda r: r[0].version, lambda r: self._record(*r))

    def _select(self, include_archived: bool) -> Select[_Row, int]:
        """Rows with the revision of their name."""
        name = and_(NameRow.space == self._kind.space, NameRow.name == self._row.name)
        query = select(self._row, NameRow.revision).join(NameRow, name)
        query = query.options(selectinload(self._related))
        return query if include_archived else query.where(self._row.archived_at.is_(None))
