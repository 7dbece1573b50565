"""Every route of an application: what the documentation and the tests go through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Match
from starlette.types import Scope

from .deps import PERMISSION_KEY, QUEUED_KEY
from .routes import (
    admin,
    analyze_probe,
    analyze_text,
    capabilities,
    chat,
    completions,
    directions,
    health,
    jobs,
    models,
    profiles,
    tokenize,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    *(chat.router, completions.router, models.router, tokenize.router),
    *(directions.router, profiles.router, jobs.router, admin.router),
    *(analyze_text.router, analyze_probe.router),
    *(health.router, capabilities.router),
)
"""Every route but those that show the document of all of them."""


@dataclass(frozen=True, slots=True, order=True)
class RouteInfo:
    """One method of one path.

    Attributes:
        path: With its parameters in braces.
        method: In capitals.
        permission: What a key needs, `public`, or None where it was forgotten.
        is_queued: Whether it waits in the engine's queue.
        summary: First line of what the route says of itself.
    """

    path: str
    method: str
    permission: str | None
    is_queued: bool
    summary: str


def list_routes(app: FastAPI) -> list[RouteInfo]:
    """Routes by path and method."""
    found = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute):
            continue
        summary = (route.endpoint.__doc__ or "").strip().partition("\n")[0]
        extra = route.openapi_extra or {}
        permission, is_queued = extra.get(PERMISSION_KEY), extra.get(QUEUED_KEY, False)
        found += [
            RouteInfo(context.path or route.path, method, permission, is_queued, summary)
            for method in route.methods or ()
        ]
    return sorted(found)


def methods_of(app: FastAPI, scope: Scope) -> list[str]:
    """Every method of a request's path, whichever of several routes has it."""
    known = sorted({route.method for route in list_routes(app)})
    return [
        method
        for method in known
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]
