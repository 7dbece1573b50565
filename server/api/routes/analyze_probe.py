"""`POST /v1/steering/analyze/cliff` and `heads`: rollouts and attention heads under a probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request

from server.api.deps import ActorDep, CallerDep, Services, ServicesDep, operation
from server.api.generation.analysis import choose_analysed_steering, readable_request
from server.api.generation.prompts import Prompt
from server.api.generation.steering_choice import PROFILE_HEADER
from server.api.http.body import Strictness
from server.api.http.errors import InvalidParameterError
from server.api.http.sse import until_disconnect
from server.api.request_body import JsonBody
from server.api.schemas.analysis import CliffBody, Cliffs, Heads, HeadsBody
from server.api.schemas.fields import read
from server.api.schemas.steering import SteeringFields
from server.auth.permissions import Permission, Principal
from server.measure.cliff import CliffQuery, cliff_document, measure_rollouts
from server.measure.heads import HeadMethod, HeadsQuery, HeadsReport, check_heads, rank_on_engine
from server.measure.instrument import Instrument
from server.measure.probe import plan_probe
from server.measure.rollout import Rollout
from server.resolver.resolution import ResolvedSteering
from server.resolver.resolver import with_readouts
from server.store import Actor
from server.store.errors import StoreError
from server.store.names import check_requires
from steering.directions import Direction
from steering.documents import Monitor
from steering.errors import InvalidFieldError
from steering.plan import PlannedMonitor
from steering.requirements import permission_of, permissions_to_read

_MAX_RUNS: Final = 8192  # prompts x heads of one request; more goes through a job

router = APIRouter(prefix="/v1/steering/analyze", tags=["Analysis"])


def _read_cliff(document: dict[str, Any]) -> tuple[SteeringFields, CliffQuery]:
    fields = _steering(document.pop("steering", None))
    given = {key: value for key, value in document.items() if value is not None}
    return fields, CliffQuery.from_dict(given)


def _steering(given: Any) -> SteeringFields:
    if given is None:
        return SteeringFields()
    if not isinstance(given, dict):
        raise InvalidParameterError("steering: expected an object", param="steering")
    return read(SteeringFields, given, under="steering")


def _read_heads(document: dict[str, Any]) -> HeadsQuery:
    given = {key: value for key, value in document.items() if value is not None}
    return HeadsQuery.from_dict(given)


_CliffAsked = Annotated[
    tuple[SteeringFields, CliffQuery],
    Depends(JsonBody(CliffBody, Strictness.OWN, take=_read_cliff)),
]
_HeadsAsked = Annotated[HeadsQuery, Depends(JsonBody(HeadsBody, Strictness.OWN, take=_read_heads))]


@router.post(
    "/cliff",
    response_model=Cliffs,
    response_model_exclude_unset=True,
    openapi_extra=operation(Permission.ADMIN, PROFILE_HEADER, is_queued=True),
)
async def cliff(
    asked: _CliffAsked,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    actor: ActorDep,
) -> dict[str, Any]:
    """Score curves of rollouts under a probe: plateau, final, cliff, their average and ranking."""
    fields, query = asked
    if fields.prompt_tokens:
        raise InvalidFieldError(
            "steering.prompt_tokens is given; every thought counts as generated; remove it",
            param="steering.prompt_tokens",
        )
    steering = await choose_analysed_steering(request, services, caller, actor, fields)
    probe, _ = await _load_probe(services, caller, actor, query.probe)
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
    answer = await services.pools.bulk.run(cliff_document, curves, query, probe)
    return {**identity.document("steering.analysis.cliff"), **answer}


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


@router.post(
    "/heads",
    response_model=Heads,
    response_model_exclude_unset=True,
    openapi_extra=operation(Permission.ADMIN, is_queued=True),
)
async def heads(
    query: _HeadsAsked,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    actor: ActorDep,
) -> dict[str, Any]:
    """Every head's effect on a probe; `profile` saves the first few per cent as a draft."""
    check_requires(query.requires)
    caller.require(*query.requires, param="requires")
    probe, stored = await _load_probe(services, caller, actor, query.probe)
    if query.profile is not None:
        # Scaling heads may weaken what the probe reads, so all that its direction asks for counts.
        inherited = sorted({*query.requires, *map(permission_of, stored.requires)})
        caller.require(*inherited, param="probe")
        query = query.model_copy(update={"requires": tuple(inherited)})
    engine, info = services.engine, services.engine.info()
    check_heads(engine, query, probe)
    _check_runs(query, info.spec.num_layers * info.spec.num_heads)
    prompts = await services.pools.bulk.run(query.endings, engine.tokenizer, info.max_model_len)
    identity = services.identify_answer("heads", info.model_name)
    instrument = Instrument(engine, name=identity.id, compute=services.pools.bulk.run)
    report = await until_disconnect(
        request.receive, rank_on_engine(engine, instrument, query, prompts, probe)
    )
    answer = {
        **identity.document("steering.analysis.heads"),
        **report.document(),
    }
    if query.profile is not None:
        answer |= await services.pools.writes.run(
            _save, services, query.profile, report, caller, actor
        )
    return answer


def _check_runs(query: HeadsQuery, num_heads: int) -> None:
    runs = len(query.prompts) * num_heads
    if query.method is HeadMethod.CAUSAL and runs > _MAX_RUNS:
        raise InvalidFieldError(
            f"prompts has {len(query.prompts)} entries, and each is run once for each of "
            f"{num_heads} heads; expected at most {_MAX_RUNS:,} runs; send fewer, or start a job "
            "of kind 'heads'",
            param="prompts",
        )


def _save(
    services: Services, name: str, report: HeadsReport, caller: Principal, by: Actor
) -> dict[str, str]:
    """The selected heads as a direction, and a draft profile that scales them."""
    made = report.direction(services.resolver.spec)
    direction = services.uploader.from_direction(made, by=by).saved.record.reference
    draft = report.draft(direction)
    saved = services.drafting.save(name, draft, caller=caller, by=by, publish=False)
    return {"direction": direction, "profile": saved.record.reference}


async def _load_probe(
    services: Services, caller: Principal, actor: Actor, monitor: Monitor
) -> tuple[PlannedMonitor, Direction]:
    """The probe a request names, compiled where it is to be read, and as it is stored.

    Raises:
        DirectionNotFoundError: There is none; `param` is `probe`.
        PermissionDeniedError: It requires a permission the key does not hold.
        SteeringError: It is no probe, or does not fit there.
    """
    resolver = services.resolver
    try:
        direction = await services.pools.reads.run(resolver.library.get, monitor.direction)
    except StoreError as error:
        error.at("probe")
        raise
    caller.require(*permissions_to_read(direction.requires), param="probe")
    planned = plan_probe(monitor, direction, resolver.spec)
    await resolver.audit_reading([direction], actor)
    return planned, direction
