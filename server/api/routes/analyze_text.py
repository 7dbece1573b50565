"""`POST /v1/steering/analyze/trace` and `score`: a conversation, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from server.api.deps import ActorDep, AnswerIdentity, CallerDep, Services, ServicesDep, operation
from server.api.generation.analysis import (
    choose_analysed_steering,
    read_conversation,
    read_readouts,
    readable_request,
)
from server.api.generation.outputs import ChoiceOutput
from server.api.generation.prompts import Prompt, check_token_ids, encode_text
from server.api.generation.run import GenerationRun
from server.api.generation.steering_choice import PROFILE_HEADER
from server.api.http.body import Strictness
from server.api.http.errors import InvalidParameterError
from server.api.http.sse import until_disconnect
from server.api.request_body import JsonBody
from server.api.schemas.analysis import Score, ScoreBody, Trace, TraceBody
from server.auth.permissions import Permission, Principal
from server.engine.outputs import MonitorReading
from server.engine.request import GenerationRequest
from server.measure.scoring import TextScore, score_text
from server.resolver.resolution import ResolvedSteering
from server.resolver.resolver import with_readouts
from steering.documents import Region
from steering.plan import PlannedMonitor

_MAX_SCORES: Final = 2**20

router = APIRouter(prefix="/v1/steering/analyze", tags=["Analysis"])

_TraceBody = Annotated[TraceBody, Depends(JsonBody(TraceBody, Strictness.OWN))]
_ScoreBody = Annotated[ScoreBody, Depends(JsonBody(ScoreBody, Strictness.OWN))]


@router.post(
    "/trace",
    response_model=Trace,
    openapi_extra=operation(Permission.ADMIN, PROFILE_HEADER, is_queued=True),
)
async def trace(
    body: _TraceBody, request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Scores of directions and probes at every token, prompt and generated, under any steering."""
    steering = await choose_analysed_steering(request, services, caller, actor, body.steering)
    readouts = await read_readouts(services, caller, actor, body.readouts, "readouts")
    identity = services.identify_answer("trace", services.engine.info().model_name)
    prompt, made = await services.offload.run(
        request, _traced, services, caller, identity, body, steering, readouts
    )
    run = GenerationRun(services.engine, services.metrics, identity, steering, (made,), 1)
    await until_disconnect(request.receive, run.finish())
    answer = partial(_trace_answer, services, run, prompt, readouts)
    size = len(readouts) * run.sequences[0].num_prompt_tokens
    return await services.offload.run_sized(
        getattr(request.state, "body_bytes", 0) + 16 * size, lambda: JSONResponse(answer())
    )


def _traced(
    services: Services,
    caller: Principal,
    identity: AnswerIdentity,
    body: TraceBody,
    steering: ResolvedSteering,
    readouts: tuple[PlannedMonitor, ...],
) -> tuple[Prompt, GenerationRequest]:
    prompt = read_conversation(services, body)
    _check_size(len(readouts), len(prompt.token_ids) + body.max_tokens)
    made = readable_request(services, caller, identity.id, prompt, steering, body.max_tokens)
    plan = with_readouts(made.plan, readouts, services.engine.info().spec.num_layers)
    return prompt, replace(made, plan=plan, monitor_prompt=True)


def _trace_answer(
    services: Services, run: GenerationRun, prompt: Prompt, readouts: Sequence[PlannedMonitor]
) -> dict[str, Any]:
    [output] = run.choices
    report = run.report()
    del report["monitors"]  # the profile's own; what was read are the readouts
    return {
        **run.identity.document("steering.analysis.trace"),
        "tokens": _tokens(services, prompt, output),
        "readouts": [
            _readout(*pair, num_tokens=len(prompt.token_ids) + len(output.token_ids))
            for pair in zip(readouts, output.monitors, strict=True)
        ],
        "finish_reason": output.finish_reason,
        "steering": report,
    }


def _check_size(num_readouts: int, num_tokens: int) -> None:
    if num_readouts * num_tokens > _MAX_SCORES:
        raise InvalidParameterError(
            f"{num_readouts} readouts of up to {num_tokens:,} tokens are "
            f"{num_readouts * num_tokens:,} scores; expected at most {_MAX_SCORES:,}",
            param="readouts",
        )


def _readout(
    monitor: PlannedMonitor, reading: MonitorReading, *, num_tokens: int
) -> dict[str, Any]:
    """The last generated token is never run through the model: its score is null."""
    scores: list[float | None] = [None] * num_tokens
    for position, score in zip(reading.positions, reading.scores, strict=True):
        scores[position] = score if math.isfinite(score) else None
    return {
        "direction": monitor.label,
        "layer": monitor.point.layer,
        "site": monitor.point.site.value,
        "bias": monitor.bias,
        "scores": scores,
    }


def _tokens(services: Services, prompt: Prompt, output: ChoiceOutput) -> list[dict[str, Any]]:
    tokenizer = services.engine.tokenizer
    codes = list(prompt.regions or ())
    roles = list(prompt.roles or ())
    if prompt.regions is not None and prompt.roles is not None:
        tracker = tokenizer.region_tracker(prompt.token_ids, prompt.regions)
        codes += [tracker.advance(token_id) for token_id in output.token_ids]
        roles += ["assistant"] * len(output.token_ids)
    ids = [*prompt.token_ids, *output.token_ids]
    return [
        {
            "id": token_id,
            "text": tokenizer.token_text(token_id),
            "scope": "prompt" if index < len(prompt.token_ids) else "generated",
            "regions": _regions(roles[index], codes[index]) if roles else [],
        }
        for index, token_id in enumerate(ids)
    ]


def _regions(role: str | None, code: int) -> list[str]:
    """Whose words a token is part of, then the parts of an assistant's turn."""
    parts = [str(part.name).lower() for part in (Region.THINKING, Region.ANSWER) if part & code]
    return [role or "template", *parts]


@router.post(
    "/score",
    response_model=Score,
    openapi_extra=operation(Permission.ADMIN, PROFILE_HEADER, is_queued=True),
)
async def score(
    body: _ScoreBody, request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Log-probabilities of known text, and how far steering moves each distribution (KL)."""
    steering = await choose_analysed_steering(request, services, caller, actor, body.steering)
    identity = services.identify_answer("score", services.engine.info().model_name)
    made, start = await services.offload.run(
        request, _scored, services, caller, identity, body, steering
    )
    found = await until_disconnect(
        request.receive, score_text(services.engine, made, start, services.pools.bulk.run)
    )
    answer = partial(
        _score_answer, services, identity, made.prompt_token_ids, start, found, steering
    )
    return await services.offload.run(request, lambda: JSONResponse(answer()))


def _scored(
    services: Services,
    caller: Principal,
    identity: AnswerIdentity,
    body: ScoreBody,
    steering: ResolvedSteering,
) -> tuple[GenerationRequest, int]:
    context = read_conversation(services, body)
    prompt, start = _with_continuation(services, body, context)
    if start and not steering.prompt_tokens:
        steering = replace(steering, prompt_tokens=(len(context.token_ids),))
    return readable_request(services, caller, identity.id, prompt, steering, 0), start


def _with_continuation(services: Services, body: ScoreBody, context: Prompt) -> tuple[Prompt, int]:
    """The whole text, and the position whose next token is the first to be scored."""
    if body.continuation is None:
        return context, 0
    info, tokenizer = services.engine.info(), services.engine.tokenizer
    if isinstance(body.continuation, str):
        added = encode_text(
            tokenizer, body.continuation, info.max_model_len, add_special_tokens=False
        ).token_ids
    else:
        check_token_ids(body.continuation, info, "continuation")
        added = tuple(body.continuation)
    if len(context.token_ids) + len(added) > info.max_model_len:
        raise InvalidParameterError(
            f"prompt and continuation have {len(context.token_ids) + len(added):,} tokens; "
            f"expected at most {info.max_model_len:,}",
            param="continuation",
        )
    regions = context.regions
    if regions is not None:
        tracker = tokenizer.region_tracker(context.token_ids, regions)
        regions += bytes(tracker.advance(token_id) for token_id in added)
    start = len(context.token_ids) - 1
    return Prompt((*context.token_ids, *added), regions=regions), start


def _score_answer(
    services: Services,
    identity: AnswerIdentity,
    token_ids: Sequence[int],
    start: int,
    found: TextScore,
    steering: ResolvedSteering,
) -> dict[str, Any]:
    text, plan = services.engine.tokenizer.token_text, steering.plan
    kl = found.kl or (None,) * (len(found.logprobs) + 1)
    tokens = [
        {
            "position": position,
            "id": token_id,
            "text": text(token_id),
            "logprob": logprob,
            "unsteered_logprob": unsteered,
            "kl": divergence,
        }
        for position, token_id, logprob, unsteered, divergence in zip(
            range(start + 1, len(token_ids)),
            token_ids[start + 1 :],
            found.logprobs,
            found.unsteered,
            kl,
            strict=False,
        )
    ]
    return {
        **identity.document("steering.analysis.score"),
        "tokens": tokens,
        "logprob": found.logprob,
        "unsteered_logprob": math.fsum(found.unsteered),
        "mean_kl": math.fsum(found.kl) / len(found.kl) if found.kl else None,
        "next_kl": kl[-1],
        "steering": {
            "profile": steering.profile,
            "version": steering.version,
            "fingerprint": None if plan is None else plan.fingerprint,
            "applied": [] if plan is None else list(plan.reports()),
            "dose": None if plan is None else plan.dose,
            "warnings": [] if plan is None else list(plan.warnings),
        },
    }
