"""The steering that a request chooses: by its body, its model's name and its headers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from fastapi import Request

from server.api.deps import Services
from server.api.http.body import Strictness, parse_json
from server.api.http.errors import (
    InvalidParameterError,
    ModelNotFoundError,
    RequestError,
    UnsupportedParameterError,
)
from server.api.schemas.fields import read
from server.api.schemas.sampling import GenerationFields
from server.api.schemas.steering import SteeringFields
from server.auth.permissions import Principal
from server.resolver.choice import Compose, NamedProfile, SteeringChoice
from server.resolver.errors import SteeringConflictError
from server.resolver.resolution import ResolvedSteering
from server.store.audit import Actor
from steering.errors import SteeringError

_HEADER: Final = "X-Steering-Profile"

PROFILE_HEADER: Final[dict[str, Any]] = {
    "in": "header",
    "name": _HEADER,
    "description": "A profile: `name`, `name@version`, an alias, or `none`.",
    "schema": {"type": "string"},
}
"""The header that chooses a profile, as OpenAPI writes it."""


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
    """Return the profiles chosen by the model's name and by the header."""
    named = []
    if model != base:
        profile = model.removeprefix(f"{base}:")
        if profile in ("", model):
            raise ModelNotFoundError.of(model, base)
        named.append(NamedProfile(profile, "model"))
    if header is not None:
        named.append(NamedProfile(header, _HEADER))
    return tuple(named)


def _fields(body: GenerationFields) -> SteeringFields:
    """Return the `steering` object, which vLLM's clients may send as text in `vllm_xargs`."""
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
        return read(SteeringFields, parse_json(text.encode(), len(text), Strictness.OWN))
    except RequestError as error:
        raise error.under(param) from None
    except SteeringError as error:  # named as everything is that the resolver finds wrong
        raise error.under("steering") from None


def _choice(fields: SteeringFields, named: tuple[NamedProfile, ...]) -> SteeringChoice:
    own = () if fields.profile is None else (NamedProfile(fields.profile, "steering.profile"),)
    return SteeringChoice(
        named=own + named,
        strength=fields.strength,
        ignores_max_strength=fields.ignore_max_strength,
        interventions=tuple(fields.interventions),
        monitors=tuple(fields.monitors),
        compose=Compose(fields.compose),
        is_compared=fields.compare,
        prompt_tokens=tuple(fields.prompt_tokens),
    )
