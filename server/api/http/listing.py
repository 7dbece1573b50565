"""Query parameters and conditional headers of the admin routes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fastapi import Request

from server.store import MAX_LIMIT
from steering.documents import DirectionRef

from .errors import InvalidParameterError, UnknownParameterError

__all__ = ["Paging", "if_match", "paging", "reference"]


@dataclass(frozen=True, slots=True)
class Paging:
    """Where a page begins, how long it is, and what narrows the listing."""

    cursor: str | None
    limit: int
    filters: dict[str, str]


def paging(request: Request, filters: Collection[str] = ()) -> Paging:
    """The page a listing is asked for.

    Raises:
        UnknownParameterError: A query parameter that the route does not have.
        InvalidParameterError: `limit` is not a number it may be.
    """
    query = dict(request.query_params)
    for name in query:
        if name not in {"cursor", "limit", *filters}:
            raise UnknownParameterError(
                f"{name[:64]} is not a query parameter of this route", param=name[:64]
            )
    limit = query.get("limit", "50")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= MAX_LIMIT):
        raise InvalidParameterError(f"limit: expected 1 to {MAX_LIMIT}", param="limit")
    return Paging(query.get("cursor"), int(limit), {k: query[k] for k in filters if k in query})


def if_match(request: Request) -> str | None:
    """The etag a change expects, without its quotes; None for no condition."""
    header = request.headers.get("if-match")
    return None if header is None else header.strip().removeprefix("W/").strip('"')


def reference(text: str) -> DirectionRef:
    """`name` or `name@version`, from a path.

    Raises:
        InvalidFieldError: Not of that form.
    """
    return DirectionRef.parse(text, param="name")
