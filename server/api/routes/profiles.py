"""`/v1/steering/profiles` and `/aliases`: profiles, and names that move between them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic_core import to_json
from starlette.responses import Response

from server.api.deps import ActorDep, CallerDep, ServicesDep, operation
from server.api.http.listing import IF_MATCH, Listing, Paging, if_match, reference, reply
from server.api.idempotency import IDEMPOTENCY_KEY, idempotent
from server.api.request_body import IdempotentBody, JsonBody
from server.api.schemas.answers import Page
from server.api.schemas.registry import (
    Alias,
    AliasDeleted,
    AliasTarget,
    Profile,
    ProfileDraft,
    ProfilesArchived,
    ProfileValidation,
)
from server.auth.permissions import Permission
from server.store import AliasRecord, ProfileRecord, ProfileStatus, ProfileStore
from server.store.errors import ProfileNotFoundError
from steering.documents import DirectionRef

router = APIRouter(prefix="/v1/steering")

_Target = Annotated[AliasTarget, Depends(JsonBody(AliasTarget))]
_Page = Annotated[Paging, Depends(Listing())]
_Draft = Annotated[ProfileDraft, Depends(IdempotentBody(ProfileDraft))]


@router.post(
    "/profiles",
    tags=["Profiles"],
    status_code=201,
    response_model=Profile,
    openapi_extra=operation(Permission.ADMIN, IDEMPOTENCY_KEY, IF_MATCH),
)
@idempotent()
async def create_profile(
    draft: _Draft, request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Save a profile as the next version of its name; an equal newest version: 200.

    What its directions ask of a key by their use here, the caller's key must hold.
    """
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


@router.post(
    "/profiles:validate",
    tags=["Profiles"],
    response_model=ProfileValidation,
    openapi_extra=operation(Permission.ADMIN),
)
async def validate_profile(
    draft: Annotated[ProfileDraft, Depends(JsonBody(ProfileDraft))], services: ServicesDep
) -> Response:
    """What a profile would do (layers, sites, ranks, doses), or every problem; saves nothing."""
    checked = await services.pools.reads.run(services.drafting.check, draft.name, draft.document())
    spec = services.resolver.spec
    answer = {
        "object": "steering.profile.validation",
        "name": draft.name,
        "is_valid": True,
        "fingerprint": checked.plan.fingerprint,
        "model_fingerprint": spec.fingerprint,
        "interventions": checked.report(spec),
        "dose": checked.plan.dose,
        "warnings": list(checked.plan.warnings),
        "monitors": [
            {"direction": item.label, "layer": item.point.layer, "site": item.point.site.value}
            for item in checked.plan.monitors
        ],
    }
    # Not through the model: a gate is reported with its members in the order of the profile's.
    return Response(to_json(answer), media_type="application/json")


@router.get("/profiles", tags=["Profiles"], openapi_extra=operation(Permission.READ))
async def list_profiles(
    asked: Annotated[Paging, Depends(Listing(status=ProfileStatus))], services: ServicesDep
) -> Page[Profile]:
    """The newest version of each profile, by name; `status` keeps drafts or published ones."""
    found = await services.pools.reads.run(
        services.store.profiles.list,
        asked.cursor,
        asked.limit,
        **asked.filters,
    )
    return Page[Profile].listing(found, Profile.of_record)


@router.get(
    "/profiles/{name}",
    tags=["Profiles"],
    response_model=Profile,
    openapi_extra=operation(Permission.READ),
)
async def get_profile(name: str, services: ServicesDep) -> Response:
    """`name`: the newest published version, or draft where none is; `name@2`: that one."""
    wanted = reference(name)
    return _reply(await services.pools.reads.run(_find, services.store.profiles, wanted))


@router.get(
    "/profiles/{name}/versions", tags=["Profiles"], openapi_extra=operation(Permission.READ)
)
async def list_profile_versions(name: str, asked: _Page, services: ServicesDep) -> Page[Profile]:
    """Every version of a profile, newest first."""
    found = await services.pools.reads.run(
        services.store.profiles.versions,
        reference(name).name,
        asked.cursor,
        asked.limit,
        include_archived=True,
    )
    return Page[Profile].listing(found, Profile.of_record)


@router.post(
    "/profiles/{name}/publish",
    tags=["Profiles"],
    response_model=Profile,
    openapi_extra=operation(Permission.ADMIN, IDEMPOTENCY_KEY, IF_MATCH),
)
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


@router.delete(
    "/profiles/{name}", tags=["Profiles"], openapi_extra=operation(Permission.ADMIN, IF_MATCH)
)
async def archive_profile(
    name: str, request: Request, services: ServicesDep, actor: ActorDep
) -> ProfilesArchived:
    """Take a version, or all, out of use; running requests keep theirs."""
    wanted = reference(name)
    archived = await services.pools.writes.run(
        services.store.profiles.archive,
        wanted.name,
        wanted.version,
        by=actor,
        expected=if_match(request),
    )
    return ProfilesArchived(name=wanted.name, versions=[record.version for record in archived])


@router.put(
    "/aliases/{alias}",
    tags=["Aliases"],
    response_model=Alias,
    openapi_extra=operation(Permission.ADMIN, IF_MATCH),
)
async def put_alias(
    alias: str, target: _Target, request: Request, services: ServicesDep, actor: ActorDep
) -> Response:
    """Make an alias, or move it to another published profile."""
    wanted = DirectionRef.parse(target.profile, param="profile")
    record = await services.pools.writes.run(
        services.store.aliases.put,
        alias,
        wanted.name,
        wanted.version,
        by=actor,
        expected=if_match(request),
    )
    return _alias(record)


@router.get("/aliases", tags=["Aliases"], openapi_extra=operation(Permission.READ))
async def list_aliases(asked: _Page, services: ServicesDep) -> Page[Alias]:
    """All aliases, by name."""
    found = await services.pools.reads.run(services.store.aliases.list, asked.cursor, asked.limit)
    return Page[Alias].listing(found, Alias.of_record)


@router.get(
    "/aliases/{alias}",
    tags=["Aliases"],
    response_model=Alias,
    openapi_extra=operation(Permission.READ),
)
async def get_alias(alias: str, services: ServicesDep) -> Response:
    """One alias."""
    return _alias(await services.pools.reads.run(services.store.aliases.get, alias))


@router.delete(
    "/aliases/{alias}", tags=["Aliases"], openapi_extra=operation(Permission.ADMIN, IF_MATCH)
)
async def delete_alias(
    alias: str, request: Request, services: ServicesDep, actor: ActorDep
) -> AliasDeleted:
    """Free the name; the profile stays."""
    await services.pools.writes.run(
        services.store.aliases.delete, alias, by=actor, expected=if_match(request)
    )
    return AliasDeleted(alias=alias)


def _find(profiles: ProfileStore, wanted: DirectionRef) -> ProfileRecord:
    if wanted.version is not None:
        return profiles.get(wanted.name, wanted.version, include_archived=True)
    try:
        return profiles.get(wanted.name)
    except ProfileNotFoundError:
        return profiles.get(wanted.name, include_drafts=True)


def _reply(record: ProfileRecord, status: int = 200) -> Response:
    return reply(Profile.of_record(record), status, etag=record.etag)


def _alias(record: AliasRecord) -> Response:
    return reply(Alias.of_record(record), etag=record.etag)
