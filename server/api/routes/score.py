"""`POST /v1/steering/analyze/score`: known text, token by token, with and without steering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from server.api.deps import ActorDep, AnswerIdentity, CallerDep, Services, ServicesDep, operation
from server.api.generation.analysis import (
    choose_analysed_steering,
    read_conversation,
    readable_request,
)
from server.api.generation.prompts import Prompt, check_token_ids, encode_text
from server.api.generation.steering_choice import read_request
from server.api.http.body import Document
from server.api.http.errors import InvalidParameterError
from server.api.http.sse import until_disconnect
from server.api.schemas.analysis import ScoreBody
from server.auth.permissions import KeyScope, Principal
from server.engine.request import GenerationRequest
from server.measure.scoring import TextScore, score_text
from server.resolver.resolution import ResolvedSteering

__all__ = ["router"]

router = APIRouter(prefix="/v1/steering/analyze", tags=["Analysis"])


@router.post("/score", openapi_extra=operation(KeyScope.ADMIN, ScoreBody, is_queued=True))
async def score(
    request: Request, services: ServicesDep, caller: CallerDep, actor: ActorDep
) -> Response:
    """Log-probabilities of known text, and how far steering moves each distribution (KL)."""
    body = await read_request(request, services, ScoreBody, services.limits.document, Document.OWN)
    steering = await choose_analysed_steering(request, services, caller, actor, body.steering)
    identity = services.identify_answer("score", services.engine.info().model_name)
    made, start = await services.desk.run(
        request, _asked, services, caller, identity, body, steering
    )
    found = await until_disconnect(
        request.receive, score_text(services.engine, made, start, services.pools.bulk.run)
    )
    answer = partial(_answer, services, identity, made.prompt_token_ids, start, found, steering)
    return await services.desk.run(request, lambda: JSONResponse(answer()))


def _asked(
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


def _answer(
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
        },
    }
