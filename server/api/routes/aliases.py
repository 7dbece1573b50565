"""`/v1/steering/aliases`: names that move between profile versions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from server.api.deps import ActorDep, ServicesDep, operation
from server.api.generation.steering_choice import read_request
from server.api.http.body import Document
from server.api.http.listing import if_match, paging
from server.api.schemas import records
from server.api.schemas.registry import AliasTarget
from server.auth.permissions import KeyScope
from server.store import AliasRecord
from steering.documents import DirectionRef

__all__ = ["router"]

router = APIRouter(prefix="/v1/steering/aliases", tags=["Aliases"])


@router.put("/{alias}", openapi_extra=operation(KeyScope.ADMIN, AliasTarget))
async def put_alias(
    alias: str, request: Request, services: ServicesDep, actor: ActorDep
) -> Response:
    """Make an alias, or move it to another published profile."""
    target = await read_request(
        request, services, AliasTarget, services.limits.document, Document.STORED
    )
    wanted = DirectionRef.parse(target.profile, param="profile")
    record = await services.pools.writes.run(
        services.store.aliases.put,
        alias,
        wanted.name,
        wanted.version,
        by=actor,
        expected=if_match(request),
    )
    return _reply(record)


@router.get("", openapi_extra=operation(KeyScope.READ))
async def list_aliases(request: Request, services: ServicesDep) -> dict[str, Any]:
    """All aliases, by name."""
    asked = paging(request)
    found = await services.pools.reads.run(services.store.aliases.list, asked.cursor, asked.limit)
    return records.page(found, records.alias)


@router.get("/{alias}", openapi_extra=operation(KeyScope.READ))
async def get_alias(alias: str, services: ServicesDep) -> Response:
    """One alias."""
    return _reply(await services.pools.reads.run(services.store.aliases.get, alias))


@router.delete("/{alias}", openapi_extra=operation(KeyScope.ADMIN))
async def delete_alias(
    alias: str, request: Request, services: ServicesDep, actor: ActorDep
) -> dict[str, Any]:
    """Free the name; the profile stays."""
    await services.pools.writes.run(
        services.store.aliases.delete, alias, by=actor, expected=if_match(request)
    )
    return {"object": "steering.alias.deleted", "alias": alias}


def _reply(record: AliasRecord) -> Response:
    return JSONResponse(records.alias(record), headers={"etag": f'"{record.etag}"'})
