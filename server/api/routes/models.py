"""`/v1/models`: the model, and each published profile as a model of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter

from server.api.deps import CallerDep, ServicesDep, operation
from server.api.http.errors import ModelNotFoundError
from server.api.schemas.operations import Model, ModelList
from server.auth.permissions import Permission, Principal
from server.engine.outputs import EngineInfo
from server.resolver.choice import NONE
from server.store import ProfileRecord, ProfileStatus, Store
from server.store.errors import NotFoundError
from steering.errors import SteeringError

router = APIRouter(tags=["OpenAI"])

_PAGE = 200


@router.get(
    "/v1/models",
    response_model=ModelList,
    response_model_exclude_unset=True,
    openapi_extra=operation(Permission.CHAT),
)
async def list_models(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """The model, then `model:profile` for each published profile the key may use."""
    info, created = services.engine.info(), services.started_at
    profiles = await services.pools.reads.run(lambda: list(_published(services.store, caller)))
    models = [_model(info, created), *(_profile(info, record) for record in profiles)]
    return {"object": "list", "data": models}


@router.get(
    "/v1/models/{model:path}",
    response_model=Model,
    response_model_exclude_unset=True,
    openapi_extra=operation(Permission.CHAT),
)
async def get_model(model: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """One of them; `model:profile@2` and `model:alias` are found too."""
    info, created = services.engine.info(), services.started_at
    base, _, name = model.rpartition(":")
    if model == info.model_name:
        return _model(info, created)
    missing = ModelNotFoundError.of(model, info.model_name)
    if base != info.model_name:
        raise missing
    if name == NONE:
        return {**_model(info, created), "id": model, "parent": info.model_name}
    try:
        record = await services.pools.reads.run(services.store.aliases.resolve, name)
    except (NotFoundError, SteeringError):
        raise missing from None
    is_allowed = caller.profiles_allow is None or record.name in caller.profiles_allow
    if record.status is not ProfileStatus.PUBLISHED or not is_allowed:
        raise missing
    return {**_profile(info, record), "id": model}


def _published(store: Store, caller: Principal) -> Iterator[ProfileRecord]:
    cursor = None
    while True:
        page = store.profiles.list(cursor, _PAGE, status=ProfileStatus.PUBLISHED)
        for record in page.items:
            is_allowed = caller.profiles_allow is None or record.name in caller.profiles_allow
            if is_allowed and set(record.requires) <= caller.permissions:
                yield record
        cursor = page.next_cursor
        if cursor is None:
            return


def _model(info: EngineInfo, created: int) -> dict[str, Any]:
    return {
        "id": info.model_name,
        "object": "model",
        "created": created,
        "owned_by": "coxswain",
        "root": info.model_name,
        "parent": None,
        "max_model_len": info.max_model_len,
    }


def _profile(info: EngineInfo, record: ProfileRecord) -> dict[str, Any]:
    return {
        **_model(info, int(record.created_at.timestamp())),
        "id": f"{info.model_name}:{record.name}",
        "parent": info.model_name,
        "description": record.profile.description,
        "steering": {"profile": record.name, "version": record.version},
    }
