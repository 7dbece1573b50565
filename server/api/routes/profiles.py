"""`/v1/steering/profiles`: check, save, publish, list, read, archive."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from server.api.deps import ActorDep, CallerDep, ServicesDep, operation
from server.api.generation.steering_choice import read_request
from server.api.http.body import Document
from server.api.http.errors import InvalidParameterError
from server.api.http.listing import if_match, paging, reference
from server.api.idempotency import idempotent
from server.api.schemas import records
from server.api.schemas.registry import ProfileDraft
from server.auth.permissions import KeyScope
from server.store import ProfileRecord, ProfileStatus, ProfileStore
from server.store.errors import ProfileNotFoundError
from steering.documents import DirectionRef

__all__ = ["router"]

router = APIRouter(prefix="/v1/steering", tags=["Profiles"])


@router.post("/profiles", status_code=201, openapi_extra=operation(KeyScope.ADMIN, ProfileDraft))
@idempotent()
async def create_profile(
    request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Save a profile as the next version of its name; an equal newest version: 200.

    What its directions ask of a key by their use here, the caller's key must hold.
    """
    draft = await read_request(
        request, services, ProfileDraft, services.limits.document, Document.STORED
    )
    saved = await services.pools.writes.run(
        services.drafting.save,
        draft.name,
        draft.document(),
        caller=caller,
        by=actor,
        publish=draft.publish,
        expected=if_match(request),
    )
    return _reply(saved.record, 201 if saved.created else 200)


@router.post("/profiles:validate", openapi_extra=operation(KeyScope.ADMIN, ProfileDraft))
async def validate_profile(request: Request, services: ServicesDep) -> dict[str, Any]:
    """What a profile would do (layers, sites, ranks, doses), or every problem; saves nothing."""
    draft = await read_request(
        request, services, ProfileDraft, services.limits.document, Document.STORED
    )
    checked = await services.pools.reads.run(services.drafting.check, draft.name, draft.document())
    spec = services.resolver.spec
    return {
        "object": "steering.profile.validation",
        "name": draft.name,
        "is_valid": True,
        "fingerprint": checked.plan.fingerprint,
        "model_fingerprint": spec.fingerprint,
        "interventions": checked.report(spec),
        "monitors": [
            {"direction": item.label, "layer": item.point.layer, "site": item.point.site.value}
            for item in checked.plan.monitors
        ],
    }


@router.get("/profiles", openapi_extra=operation(KeyScope.READ))
async def list_profiles(request: Request, services: ServicesDep) -> dict[str, Any]:
    """The newest version of each profile, by name; `status` keeps drafts or published ones."""
    asked = paging(request, ("status",))
    status = asked.filters.get("status")
    if status is not None and status not in list(ProfileStatus):
        raise InvalidParameterError(
            f"status: expected one of {', '.join(ProfileStatus)}", param="status"
        )
    found = await services.pools.reads.run(
        services.store.profiles.list,
        asked.cursor,
        asked.limit,
        status=None if status is None else ProfileStatus(status),
    )
    return records.page(found, records.profile)


@router.get("/profiles/{name}", openapi_extra=operation(KeyScope.READ))
async def get_profile(name: str, services: ServicesDep) -> Response:
    """`name`: the newest published version, or draft where none is; `name@2`: that one."""
    wanted = reference(name)
    return _reply(await services.pools.reads.run(_find, services.store.profiles, wanted))


@router.get("/profiles/{name}/versions", openapi_extra=operation(KeyScope.READ))
async def list_profile_versions(
    name: str, request: Request, services: ServicesDep
) -> dict[str, Any]:
    """Every version of a profile, newest first."""
    asked = paging(request)
    found = await services.pools.reads.run(
        services.store.profiles.versions,
        reference(name).name,
        asked.cursor,
        asked.limit,
        include_archived=True,
    )
    return records.page(found, records.profile)


@router.post("/profiles/{name}/publish", openapi_extra=operation(KeyScope.ADMIN))
@idempotent()
async def publish_profile(
    name: str, request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Make a version (the newest, or `name@2`) available by the profile's name.

    What its directions ask of a key by their use in the profile, the caller's key must hold.
    """
    wanted = reference(name)
    record = await services.pools.writes.run(
        services.drafting.publish,
        wanted.name,
        wanted.version,
        caller=caller,
        by=actor,
        expected=if_match(request),
    )
    return _reply(record)


@router.delete("/profiles/{name}", openapi_extra=operation(KeyScope.ADMIN))
async def archive_profile(
    name: str, request: Request, services: ServicesDep, actor: ActorDep
) -> dict[str, Any]:
    """Take a version, or all, out of use; running requests keep theirs."""
    wanted = reference(name)
    archived = await services.pools.writes.run(
        services.store.profiles.archive,
        wanted.name,
        wanted.version,
        by=actor,
        expected=if_match(request),
    )
    return {
        "object": "steering.profile.archived",
        "name": wanted.name,
        "versions": [record.version for record in archived],
    }


def _find(profiles: ProfileStore, wanted: DirectionRef) -> ProfileRecord:
    if wanted.version is not None:
        return profiles.get(wanted.name, wanted.version, include_archived=True)
    try:
        return profiles.get(wanted.name)
    except ProfileNotFoundError:
        return profiles.get(wanted.name, include_drafts=True)


def _reply(record: ProfileRecord, status: int = 200) -> Response:
    return JSONResponse(
        records.profile(record), status_code=status, headers={"etag": f'"{record.etag}"'}
    )
