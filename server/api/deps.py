"""What a route works with, and who may call it.

Every route declares its permission in `openapi_extra=operation(...)`. One dependency of the whole
application checks it; a route that declares none is answered to nobody.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Final

from asgi_correlation_id import correlation_id
from fastapi import Depends, Request

from server.auth.permissions import (
    LOCAL_USER,
    Permission,
    PermissionDeniedError,
    Principal,
    RateLimitedError,
)
from server.engine.engine import Engine
from server.engine.sampling import SamplingDefaults
from server.jobs.manager import JobManager
from server.metrics import Metrics
from server.pools import Pools
from server.registry.drafting import Drafting
from server.registry.upload import Uploader
from server.resolver.resolver import Resolver
from server.store import Actor, Store

from .http.body import Offload
from .http.lifecycle import Lifecycle, StoreHealth
from .http.limits import Limits, Room
from .key_gate import KeyGate

PUBLIC: Final = "public"
"""Declared by a route that needs no key."""

PERMISSION_KEY: Final = "x-coxswain-scope"
"""Where the permission that a route takes stands in its OpenAPI operation."""

QUEUED_KEY: Final = "x-coxswain-queued"
"""Where it stands whether a route waits in the engine's queue."""


@dataclass(frozen=True, slots=True)
class AnswerIdentity:
    """What an answer says of itself, and every chunk of a streamed one repeats.

    Attributes:
        id: Random, after a prefix that names the kind of answer.
        created: When the request came; seconds since 1970.
        model: Name of the model as the client wrote it.
        system_fingerprint: Begins the fingerprint of the weights that are served.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str

    def document(self, kind: str) -> dict[str, Any]:
        """The first members of an answer, whose `object` is `kind`."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the routes share; made once by the application."""

    engine: Engine
    store: Store
    resolver: Resolver
    uploader: Uploader
    drafting: Drafting
    jobs: JobManager
    pools: Pools
    metrics: Metrics
    lifecycle: Lifecycle
    store_health: StoreHealth
    keys: KeyGate
    limits: Limits
    offload: Offload
    room: Room
    sampling: SamplingDefaults
    started_at: int

    def identify_answer(self, prefix: str, model: str) -> AnswerIdentity:
        """A new answer's identity, whose id begins with `prefix`, for the model a client named."""
        fingerprint = self.engine.info().spec.fingerprint
        return AnswerIdentity(
            f"{prefix}-{uuid.uuid4().hex}", int(time.time()), model, f"fp_{fingerprint[:16]}"
        )


def operation(
    permission: Permission | str, *parameters: dict[str, Any], is_queued: bool = False
) -> dict[str, Any]:
    """What a route declares in its OpenAPI operation.

    Args:
        permission: What a key must hold, or `PUBLIC`.
        parameters: Headers that it reads by itself, as OpenAPI writes them.
        is_queued: Whether it waits in the engine's queue, and is refused before anything while
            that is full.
    """
    extra: dict[str, Any] = {PERMISSION_KEY: str(permission), QUEUED_KEY: is_queued}
    if parameters:
        extra["parameters"] = list(parameters)
    return extra


async def _services(request: Request) -> Services:
    """What `create_app` left in the state of the application."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


async def authorize(request: Request, services: ServicesDep) -> None:
    """Find out who calls, and whether the key has the route's permission.

    Raises:
        AuthError: It does not.
    """
    extra = getattr(request.scope.get("route"), "openapi_extra", None) or {}
    permission = extra.get(PERMISSION_KEY)
    if permission is None:
        raise PermissionDeniedError("this route declares no scope and is answered to nobody")
    if permission == PUBLIC:
        request.state.caller = LOCAL_USER
        return
    authorization = request.headers.get("authorization", "").encode("latin-1")
    try:
        caller, allowance = await services.keys.admit(authorization)
    except RateLimitedError as error:
        request.state.allowance = error.allowance
        raise
    request.state.allowance = allowance
    caller.require(permission)
    request.state.caller = caller


async def _caller(request: Request) -> Principal:
    """Whom `authorize` let in."""
    caller: Principal = request.state.caller
    return caller


CallerDep = Annotated[Principal, Depends(_caller)]


async def _actor(request: Request, caller: CallerDep) -> Actor:
    """The caller, as the audit log names it."""
    address = None if request.client is None else request.client.host
    return Actor(caller.key_id, correlation_id.get(), address)


ActorDep = Annotated[Actor, Depends(_actor)]
