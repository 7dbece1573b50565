"""`POST /v1/steering/analyze/cliff`: where refusal scores fall between thought and answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request

from server.api.deps import ActorDep, CallerDep, Services, ServicesDep, operation
from server.api.generation.analysis import choose_analysed_steering, readable_request
from server.api.generation.prompts import Prompt
from server.api.generation.steering_choice import read_document
from server.api.http.body import Document
from server.api.http.errors import InvalidParameterError
from server.api.http.sse import until_disconnect
from server.api.schemas.fields import read
from server.api.schemas.steering import SteeringFields
from server.auth.permissions import KeyScope, Principal
from server.measure.cliff import CliffQuery, cliff_document, measure_rollouts
from server.measure.instrument import Instrument
from server.measure.rollout import Rollout
from server.resolver.resolution import ResolvedSteering
from server.resolver.resolver import with_readouts
from steering.errors import InvalidFieldError

from .probes import load_probe

__all__ = ["router"]

_MAX_CONVERSATIONS: Final = 256

router = APIRouter(prefix="/v1/steering/analyze", tags=["Analysis"])


@router.post("/cliff", openapi_extra=operation(KeyScope.ADMIN, is_queued=True))
async def cliff(
    request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> dict[str, Any]:
    """Score curves of rollouts under a probe: plateau, final, cliff, their average and ranking."""
    fields, query = await read_document(
        request, services, services.limits.document, Document.OWN, _read
    )
    if fields.prompt_tokens:
        raise InvalidFieldError(
            "steering.prompt_tokens is given; every thought counts as generated; remove it",
            param="steering.prompt_tokens",
        )
    steering = await choose_analysed_steering(request, services, caller, actor, fields)
    probe, _ = await load_probe(services, caller, actor, query.probe)
    info = services.engine.info()
    rollouts = await services.pools.bulk.run(
        query.rollouts, services.engine.tokenizer, info.max_model_len
    )
    identity = services.identify_answer("cliff", info.model_name)
    await services.pools.bulk.run(_check_effect, services, caller, identity.id, rollouts, steering)
    plan = with_readouts(steering.plan, (probe,), info.spec.num_layers)
    instrument = Instrument(services.engine, name=identity.id, compute=services.pools.bulk.run)
    curves = await until_disconnect(
        request.receive, measure_rollouts(instrument, rollouts, plan, query.trim)
    )
    return {
        **identity.document("steering.analysis.cliff"),
        **await services.pools.bulk.run(cliff_document, curves, query, probe),
    }


def _read(document: dict[str, Any]) -> tuple[SteeringFields, CliffQuery]:
    fields = _steering(document.pop("steering", None))
    given = {key: value for key, value in document.items() if value is not None}
    return fields, CliffQuery.from_document(given, most=_MAX_CONVERSATIONS)


def _steering(given: Any) -> SteeringFields:
    if given is None:
        return SteeringFields()
    if not isinstance(given, dict):
        raise InvalidParameterError("steering: expected an object", param="steering")
    return read(SteeringFields, given, under="steering")


def _check_effect(
    services: Services,
    caller: Principal,
    name: str,
    rollouts: Sequence[Rollout],
    steering: ResolvedSteering,
) -> None:
    """Check that steering acts on some token of each rollout, as it does before any answer."""
    for rollout in rollouts:
        prompt = Prompt(rollout.token_ids, regions=rollout.regions)
        own = replace(steering, prompt_tokens=(rollout.num_prompt_tokens,))
        readable_request(services, caller, name, prompt, own, 0)
