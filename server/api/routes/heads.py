"""`POST /v1/steering/analyze/heads`: attention heads ranked against a probe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request

from server.api.deps import ActorDep, CallerDep, Services, ServicesDep, operation
from server.api.generation.steering_choice import read_document
from server.api.http.body import Document
from server.api.http.sse import until_disconnect
from server.auth.permissions import KeyScope, Principal
from server.measure.heads import HeadMethod, HeadsQuery, HeadsReport, check_heads, rank_on_engine
from server.measure.instrument import Instrument
from server.store import Actor
from server.store.names import check_requires
from steering.errors import InvalidFieldError
from steering.requirements import scope_of

from .probes import load_probe

__all__ = ["router"]

_MAX_PROMPTS: Final = 256
_MAX_RUNS: Final = 8192  # prompts x heads of one request; more goes through a job

router = APIRouter(prefix="/v1/steering/analyze", tags=["Analysis"])


@router.post("/heads", openapi_extra=operation(KeyScope.ADMIN, is_queued=True))
async def heads(
    request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> dict[str, Any]:
    """Every head's effect on a probe; `profile` saves the first few per cent as a draft."""
    query = await read_document(request, services, services.limits.document, Document.OWN, _read)
    check_requires(query.requires)
    caller.require(*query.requires, param="requires")
    probe, stored = await load_probe(services, caller, actor, query.probe)
    if query.profile is not None:
        # Scaling heads may weaken what the probe reads, so all that its direction asks for counts.
        inherited = sorted({*query.requires, *map(scope_of, stored.requires)})
        caller.require(*inherited, param="probe")
        query = replace(query, requires=tuple(inherited))
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


def _read(document: dict[str, Any]) -> HeadsQuery:
    given = {key: value for key, value in document.items() if value is not None}
    return HeadsQuery.from_document(given, most=_MAX_PROMPTS)


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
