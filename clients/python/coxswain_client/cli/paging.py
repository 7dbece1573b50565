"""Listings whole, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from coxswain_client.models.record import Page

__all__ = ["every"]

_T = TypeVar("_T")


def every(get: Callable[[str | None], Page[_T]]) -> Iterator[_T]:
    """Every item of a listing; `get` fetches the page at a cursor."""
    cursor: str | None = None
    while True:
        page = get(cursor)
        yield from page.data
        cursor = page.next_cursor
        if cursor is None:
            return
