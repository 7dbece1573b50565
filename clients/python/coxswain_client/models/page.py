"""Listings."""

from __future__ import annotations

from typing import Generic, TypeVar

from .record import Record

__all__ = ["Page"]

_T = TypeVar("_T")


class Page(Record, Generic[_T]):
    """Part of a listing; `next_cursor` gets the next part, None at the end."""

    data: list[_T]
    next_cursor: str | None = None
