"""Listings read in pages that stay stable while rows are added."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from steering.errors import InvalidFieldError

from .canonical import canonical_json, json_digest
from .errors import InvalidCursorError

_T = TypeVar("_T")
_R = TypeVar("_R")

MAX_LIMIT: Final = 200
"""Most items of one page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """Part of a listing.

    Attributes:
        items: The items, in the order of the listing.
        next_cursor: Cursor of the next page; None at the end.
    """

    items: tuple[_T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """One way of listing: what is listed and with which filters. Cursors belong to it.

    A cursor holds the key of the last item given out, so a page begins after that key whatever
    was added or archived meanwhile.

    Attributes:
        noun: What is listed.
        filters: Everything that narrows the listing.
        limit: Most items of a page.
    """

    noun: str
    filters: tuple[str | None, ...] = ()
    limit: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise InvalidFieldError(
                f"limit is {self.limit}; expected 1 to {MAX_LIMIT}", param="limit"
            )

    def after(self, cursor: str | None, kind: type[_R]) -> _R | None:
        """The key a page begins after; None for the first page.

        Raises:
            InvalidCursorError: This listing did not give out `cursor`.
        """
        if cursor is None:
            return None
        try:
            digest, key = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, TypeError, RecursionError):
            raise self._refusal() from None
        if digest != self._digest or type(key) is not kind or "\0" in str(key):
            raise self._refusal()
        return key

    def page(
        self, rows: Sequence[_R], key: Callable[[_R], str | int], record: Callable[[_R], _T]
    ) -> Page[_T]:
        """A page of `rows`, of which there are `limit` + 1 where more follow."""
        listed = rows[: self.limit]
        more = len(rows) > self.limit
        return Page(tuple(map(record, listed)), self._cursor(key(listed[-1])) if more else None)

    @property
    def _digest(self) -> str:
        return json_digest([self.noun, *self.filters])[:12]

    def _cursor(self, key: str | int) -> str:
        text = canonical_json([self._digest, key]).encode()
        return base64.urlsafe_b64encode(text).decode()

    def _refusal(self) -> InvalidCursorError:
        return InvalidCursorError(
            "cursor was not given out by this listing with these filters; begin again without it",
            param="cursor",
        )
