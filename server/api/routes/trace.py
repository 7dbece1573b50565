"""`POST /v1/steering/analyze/trace`: directions and probes read at every token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from server.api.deps import ActorDep, AnswerIdentity, CallerDep, Services, ServicesDep, operation
from server.api.generation.analysis import (
    choose_analysed_steering,
    read_conversation,
    read_readouts,
    readable_request,
)
from server.api.generation.outputs import ChoiceOutput
from server.api.generation.prompts import Prompt
from server.api.generation.run import GenerationRun
from server.api.generation.steering_choice import read_request
from server.api.http.body import Document
from server.api.http.errors import InvalidParameterError
from server.api.http.sse import until_disconnect
from server.api.schemas.analysis import TraceBody
from server.auth.permissions import KeyScope, Principal
from server.engine.outputs import MonitorReading
from server.engine.request import GenerationRequest
from server.resolver.resolution import ResolvedSteering
from server.resolver.resolver import with_readouts
from steering.documents import Region
from steering.plan import PlannedMonitor

__all__ = ["router"]

_MAX_SCORES: Final = 2**20

router = APIRouter(prefix="/v1/steering/analyze", tags=["Analysis"])


@router.post("/trace", openapi_extra=operation(KeyScope.ADMIN, TraceBody, is_queued=True))
async def trace(
    request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Scores of directions and probes at every token, prompt and generated, under any steering."""
    body = await read_request(request, services, TraceBody, services.limits.document, Document.OWN)
    steering = await choose_analysed_steering(request, services, caller, actor, body.steering)
    readouts = await read_readouts(services, caller, actor, body.readouts, "readouts")
    identity = services.identify_answer("trace", services.engine.info().model_name)
    prompt, made = await services.desk.run(
        request, _asked, services, caller, identity, body, steering, readouts
    )
    run = GenerationRun(services.engine, services.metrics, identity, steering, (made,), 1)
    await until_disconnect(request.receive, run.finish())
    answer = partial(_answer, services, run, prompt, readouts)
    size = len(readouts) * run.sequences[0].num_prompt_tokens
    return await services.desk.run_sized(
        getattr(request.state, "body_bytes", 0) + 16 * size, lambda: JSONResponse(answer())
    )


def _asked(
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


def _answer(
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
