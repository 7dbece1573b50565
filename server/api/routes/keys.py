"""`/v1/admin/keys`: make, list and revoke API keys."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from server.api.deps import ActorDep, CallerDep, ServicesDep, operation
from server.api.generation.steering_choice import read_request
from server.api.http.body import Document
from server.api.http.errors import InvalidParameterError
from server.api.http.listing import paging
from server.api.idempotency import idempotent
from server.api.schemas import records
from server.api.schemas.registry import KeyRequest
from server.auth.permissions import KeyScope
from server.store import KeySpec

__all__ = ["router"]

router = APIRouter(prefix="/v1/admin/keys", tags=["Keys"])


@router.post("", status_code=201, openapi_extra=operation(KeyScope.ADMIN, KeyRequest))
@idempotent(has_secret=True)
async def create_key(
    request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Make a key that may do no more than the caller's. Its secret is shown this once."""
    asked = await read_request(
        request, services, KeyRequest, services.limits.document, Document.STORED
    )
    minted = await services.pools.writes.run(
        services.store.keys.create, _spec(asked), minter=caller, by=actor
    )
    return JSONResponse(
        {**records.key(minted.record), "secret": minted.secret},
        status_code=201,
        headers={"cache-control": "no-store"},
    )


@router.get("", openapi_extra=operation(KeyScope.ADMIN))
async def list_keys(request: Request, services: ServicesDep) -> dict[str, Any]:
    """All keys without their secrets, revoked ones too."""
    asked = paging(request)
    found = await services.pools.reads.run(services.store.keys.list, asked.cursor, asked.limit)
    return records.page(found, records.key)


@router.get("/{key_id}", openapi_extra=operation(KeyScope.ADMIN))
async def get_key(key_id: str, services: ServicesDep) -> dict[str, Any]:
    """One key without its secret."""
    return records.key(await services.pools.reads.run(services.store.keys.get, key_id))


@router.delete("/{key_id}", openapi_extra=operation(KeyScope.ADMIN))
async def revoke_key(
    key_id: str, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> dict[str, Any]:
    """End a key for good, at once; one that may do no more than the caller's."""
    return records.key(await services.keys.revoke(key_id, revoker=caller, by=actor))


def _spec(asked: KeyRequest) -> KeySpec:
    unknown = set(asked.scopes) - set(KeyScope)
    if unknown:
        raise InvalidParameterError(
            f"scopes: expected some of {', '.join(KeyScope)}", param="scopes"
        )
    allow = asked.profiles_allow
    return KeySpec(
        name=asked.name,
        scopes=frozenset(map(KeyScope, asked.scopes)),
        profiles_allow=None if allow is None else frozenset(allow),
        default_profile=asked.default_profile,
        requests_per_minute=asked.requests_per_minute,
        expires_at=asked.expires_at,
    )
