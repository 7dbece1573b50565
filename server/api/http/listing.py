"""Query parameters and conditional headers of the admin routes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse

from server.store import MAX_LIMIT
from steering.documents import DirectionRef
from steering.sites import Site, parse_site

from .errors import InvalidParameterError, UnknownParameterError

_DEFAULT_LIMIT: Final = 50


IF_MATCH: Final[dict[str, Any]] = {
    "in": "header",
    "name": "If-Match",
    "description": "The etag of what was read; 412 where it has changed since.",
    "schema": {"type": "string"},
}


@dataclass(frozen=True, slots=True)
class Paging:
    """Where a page begins, how long it is, and what narrows the listing."""

    cursor: str | None
    limit: int
    filters: dict[str, Any]


class Listing:
    """A dependency that reads which page of a listing is asked for.

    FastAPI's own query parameters are not used: they ignore those that a route does not have.
    """

    def __init__(self, **filters: type[StrEnum] | None) -> None:
        """Args: filters: parameters that narrow the listing, and the values they may have."""
        self._filters = filters

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The parameters, as OpenAPI writes them."""
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": _DEFAULT_LIMIT}
        schemas: dict[str, Any] = {"cursor": {"type": "string"}, "limit": limit}
        for name, kind in self._filters.items():
            schemas[name] = {"type": "string"} | ({} if kind is None else {"enum": list(kind)})
        return [{"in": "query", "name": name, "schema": found} for name, found in schemas.items()]

    async def __call__(self, request: Request) -> Paging:
        """Read the page and the filters from the query.

        Raises:
            UnknownParameterError: A query parameter that the route does not have.
            InvalidParameterError, UnknownSiteError: One has a value that it may not have.
        """
        query = dict(request.query_params)
        for name in query:
            if name not in {"cursor", "limit", *self._filters}:
                raise UnknownParameterError(
                    f"{name[:64]} is not a query parameter of this route", param=name[:64]
                )
        limit = query.get("limit", str(_DEFAULT_LIMIT))
        if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= MAX_LIMIT):
            raise InvalidParameterError(f"limit: expected 1 to {MAX_LIMIT}", param="limit")
        filters = {
            name: _value(name, kind, query[name])
            for name, kind in self._filters.items()
            if name in query
        }
        return Paging(query.get("cursor"), int(limit), filters)


def _value(name: str, kind: type[StrEnum] | None, text: str) -> Any:
    if kind is None:
        return text
    if kind is Site:
        return parse_site(text)
    if text not in list(kind):
        raise InvalidParameterError(f"{name}: expected one of {', '.join(kind)}", param=name)
    return kind(text)


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


def reply(
    answer: BaseModel, status: int = 200, *, etag: str | None = None, **headers: str
) -> JSONResponse:
    """An answer with a status and headers of its own; `etag` is the one `if_match` expects."""
    if etag is not None:
        headers["etag"] = f'"{etag}"'
    return JSONResponse(answer.model_dump(mode="json"), status, headers)
