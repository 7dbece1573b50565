"""`/v1/admin`: API keys, and the log of who changed what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.api.deps import ActorDep, CallerDep, ServicesDep, operation
from server.api.http.errors import InvalidParameterError
from server.api.http.listing import Listing, Paging, reply
from server.api.idempotency import IDEMPOTENCY_KEY, idempotent
from server.api.request_body import IdempotentBody
from server.api.schemas.answers import Page
from server.api.schemas.keys import AuditEvent, Key, KeyRequest, NewKey
from server.auth.permissions import Permission
from server.store import KeySpec

router = APIRouter(prefix="/v1/admin")

_Body = Annotated[KeyRequest, Depends(IdempotentBody(KeyRequest))]


@router.post(
    "/keys",
    tags=["Keys"],
    status_code=201,
    response_model=NewKey,
    openapi_extra=operation(Permission.ADMIN, IDEMPOTENCY_KEY),
)
@idempotent(has_secret=True)
async def create_key(
    asked: _Body, request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Make a key that may do no more than the caller's. Its secret is shown this once."""
    del request  # for `idempotent`
    minted = await services.pools.writes.run(
        services.store.keys.create, _spec(asked), minter=caller, by=actor
    )
    made = NewKey.of_record(minted.record, secret=minted.secret)
    return reply(made, 201, **{"cache-control": "no-store"})


@router.get("/keys", tags=["Keys"], openapi_extra=operation(Permission.ADMIN))
async def list_keys(
    asked: Annotated[Paging, Depends(Listing())], services: ServicesDep
) -> Page[Key]:
    """All keys without their secrets, revoked ones too."""
    found = await services.pools.reads.run(services.store.keys.list, asked.cursor, asked.limit)
    return Page[Key].listing(found, Key.of_record)


@router.get("/keys/{key_id}", tags=["Keys"], openapi_extra=operation(Permission.ADMIN))
async def get_key(key_id: str, services: ServicesDep) -> Key:
    """One key without its secret."""
    return Key.of_record(await services.pools.reads.run(services.store.keys.get, key_id))


@router.delete("/keys/{key_id}", tags=["Keys"], openapi_extra=operation(Permission.ADMIN))
async def revoke_key(key_id: str, services: ServicesDep, caller: CallerDep, actor: ActorDep) -> Key:
    """End a key for good, at once; one that may do no more than the caller's."""
    return Key.of_record(await services.keys.revoke(key_id, revoker=caller, by=actor))


@router.get("/audit", tags=["Audit"], openapi_extra=operation(Permission.ADMIN))
async def list_events(
    asked: Annotated[Paging, Depends(Listing(action=None))], services: ServicesDep
) -> Page[AuditEvent]:
    """Events, newest first; `action` keeps one kind."""
    found = await services.pools.reads.run(
        services.store.audit.list,
        asked.cursor,
        asked.limit,
        action=asked.filters.get("action"),
    )
    return Page[AuditEvent].listing(found, AuditEvent.of_record)


def _spec(asked: KeyRequest) -> KeySpec:
    unknown = set(asked.scopes) - set(Permission)
    if unknown:
        raise InvalidParameterError(
            f"scopes: expected some of {', '.join(Permission)}", param="scopes"
        )
    allow = asked.profiles_allow
    return KeySpec(
        name=asked.name,
        permissions=frozenset(map(Permission, asked.scopes)),
        profiles_allow=None if allow is None else frozenset(allow),
        default_profile=asked.default_profile,
        requests_per_minute=asked.requests_per_minute,
        expires_at=asked.expires_at,
    )
