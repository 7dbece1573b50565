"""The first half of every generation route: the body, and the steering it chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request

from server.api.deps import Services
from server.api.http.body import Bounds, Document, check_media_type, parse_json, read_body
from server.api.http.errors import (
    InvalidParameterError,
    ModelNotFoundError,
    RequestError,
    UnsupportedParameterError,
)
from server.api.schemas.fields import Wire, read
from server.api.schemas.sampling import GenerationFields
from server.api.schemas.steering import SteeringFields
from server.auth.permissions import Principal
from server.resolver.choice import (
    Compose,
    NamedProfile,
    SteeringChoice,
    read_interventions,
    read_monitors,
)
from server.resolver.errors import SteeringConflictError
from server.resolver.resolution import ResolvedSteering
from server.store.audit import Actor

from .prompts import check_message_count

__all__ = ["choose_steering", "read_document", "read_request", "resolve_steering"]

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Wire)

_HEADER = "x-steering-profile"


async def read_document(
    request: Request,
    services: Services,
    bounds: Bounds,
    kind: Document,
    take: Callable[[dict[str, Any]], _T],
    *,
    hold: Callable[[], None] | None = None,
) -> _T:
    """What `take` makes of the request's JSON object; `hold` is called once it has come.

    Raises:
        RequestError: It has none, or one that is too large, too slow or too deep.
    """
    check_media_type(request, "application/json")
    data = await read_body(
        request,
        max_bytes=bounds.max_bytes,
        timeout_seconds=services.limits.body_timeout_seconds,
    )
    if hold is not None:
        hold()
    return await services.desk.run(request, lambda: take(parse_json(data, bounds.max_values, kind)))


async def read_request(
    request: Request,
    services: Services,
    model: type[_M],
    bounds: Bounds,
    kind: Document,
    *,
    hold: Callable[[], None] | None = None,
) -> _M:
    """The request's JSON object as a `model`; `hold` is called once it has come.

    Raises:
        RequestError: As `read_document`, and for the first field that is wrong.
        PromptTooLongError: More messages than are worth a look.
    """

    def take(document: dict[str, Any]) -> _M:
        if "messages" in model.model_fields:
            check_message_count(document, services.limits.max_messages)
        return read(model, document)

    return await read_document(request, services, bounds, kind, take, hold=hold)


async def choose_steering(
    request: Request,
    services: Services,
    caller: Principal,
    actor: Actor,
    body: GenerationFields,
    *,
    seeks_boundary: bool = False,
) -> ResolvedSteering:
    """Look up and compile the steering a request chooses; `seeks_boundary` as in `SteeringChoice`.

    Raises:
        RequestError: The model is unknown, or the choice malformed.
        InvalidSteeringError, SteeringError, StoreError, AuthError: The steering cannot be had.
    """
    if body.n > services.limits.max_choices:
        raise InvalidParameterError(
            f"n is {body.n}; expected at most {services.limits.max_choices}", param="n"
        )
    return await resolve_steering(
        *(request, services, caller, actor, _fields(body)),
        model=body.model,
        seeks_boundary=seeks_boundary,
    )


async def resolve_steering(
    request: Request,
    services: Services,
    caller: Principal,
    actor: Actor,
    fields: SteeringFields,
    *,
    model: str | None = None,
    seeks_boundary: bool = False,
) -> ResolvedSteering:
    """Look up and compile what a `steering` object, a model's name and the header choose.

    Raises:
        As `choose_steering`.
    """
    base = services.engine.info().model_name
    choice = _choice(fields, _named(request.headers.get(_HEADER), model or base, base))
    if not services.resolver.has_default(caller) and choice == SteeringChoice():
        return ResolvedSteering()
    choice = replace(choice, seeks_boundary=seeks_boundary)
    return await services.resolver.resolve(choice, caller, actor)


def _named(header: str | None, model: str, base: str) -> tuple[NamedProfile, ...]:
    """The profiles chosen by the model's name and by the header."""
    named = []
    if model != base:
        profile = model.removeprefix(f"{base}:")
        if profile in ("", model):
            raise ModelNotFoundError.of(model, base)
        named.append(NamedProfile(profile, "model"))
    if header is not None:
        named.append(NamedProfile(header, "X-Steering-Profile"))
    return tuple(named)


def _fields(body: GenerationFields) -> SteeringFields:
    """The `steering` object; clients behind vLLM's API may send it as text in `vllm_xargs`."""
    if body.vllm_xargs is None:
        return body.steering or SteeringFields()
    if set(body.vllm_xargs) - {"steering"}:
        raise UnsupportedParameterError(
            "vllm_xargs has entries other than 'steering'; remove them", param="vllm_xargs"
        )
    if body.steering is not None:
        raise SteeringConflictError(
            "steering is given in the body and in vllm_xargs; give one", param="vllm_xargs"
        )
    text, param = body.vllm_xargs.get("steering", "{}"), "vllm_xargs.steering"
    try:
        document = parse_json(text.encode(), len(text), Document.OWN)
    except RequestError as error:
        raise error.under(param) from None
    return read(SteeringFields, document, under=param)


def _choice(fields: SteeringFields, named: tuple[NamedProfile, ...]) -> SteeringChoice:
    own = () if fields.profile is None else (NamedProfile(fields.profile, "steering.profile"),)
    return SteeringChoice(
        named=own + named,
        strength=fields.strength,
        interventions=read_interventions(fields.interventions, "steering.interventions"),
        monitors=read_monitors(fields.monitors, "steering.monitors"),
        compose=Compose(fields.compose),
        is_compared=fields.compare,
        prompt_tokens=tuple(fields.prompt_tokens),
    )
