"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.api.deps import ActorDep, CallerDep, Services, ServicesDep, operation
from server.api.generation.answer import (
    chat_logprobs,
    chunk_events,
    prompt_logprobs,
    respond,
    whole_answer,
)
from server.api.generation.convert import chat_sampling, check_room
from server.api.generation.outputs import ChoiceOutput
from server.api.generation.prompts import asks_of_template, render_chat
from server.api.generation.reasoning import ReasoningWriter
from server.api.generation.run import GenerationRun, prepare_run
from server.api.generation.steering_choice import PROFILE_HEADER, choose_steering
from server.api.http.body import Offload, Strictness
from server.api.request_body import QueuedBody, held_place
from server.api.schemas.chat import ChatCompletion, ChatRequest
from server.auth.permissions import Permission, Principal
from server.engine.outputs import RequestOutput
from server.resolver.resolution import ResolvedSteering

router = APIRouter(tags=["OpenAI"])

_Body = Annotated[
    ChatRequest, Depends(QueuedBody(ChatRequest, Strictness.OPENAI, lambda limits: limits.chat))
]


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    openapi_extra=operation(Permission.CHAT, PROFILE_HEADER, is_queued=True),
)
async def create_chat_completion(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    actor: ActorDep,
    body: _Body,
) -> Response:
    """Continue a chat, steered as the request chooses."""
    with held_place(request):
        steering = await choose_steering(request, services, caller, actor, body)
        run = await services.offload.run(request, _run, services, caller, body, steering)
    writer = ReasoningWriter(body, services.limits.reasoning_format)
    answer = partial(_answer, body=body, writer=writer)
    events = partial(_events, body=body, writer=writer)
    return await respond(request, services, run, answer, events, is_stream=body.stream)


def _run(
    services: Services, caller: Principal, body: ChatRequest, steering: ResolvedSteering
) -> GenerationRun:
    info = services.engine.info()
    prompt = render_chat(services.engine.tokenizer, body, info.max_model_len)
    sampling = chat_sampling(body, info, services.sampling, len(prompt.token_ids))
    check_room([prompt], sampling, info, "messages")
    identity = services.identify_answer("chatcmpl", body.model)
    return prepare_run(
        *(services, caller, identity, [prompt], sampling, steering),
        num_choices=body.n,
        template=prompt.template if asks_of_template(body, prompt) else None,
    )


def _answer(run: GenerationRun, body: ChatRequest, writer: ReasoningWriter) -> dict[str, Any]:
    answer = whole_answer(run, "chat.completion", partial(_choice, run, body, writer))
    first = run.choices[0]
    if body.prompt_logprobs is not None:
        answer["prompt_logprobs"] = prompt_logprobs(first.prompt_logprobs or ())
    if body.return_token_ids:
        answer["prompt_token_ids"] = list(run.requests[0].prompt_token_ids)
    return answer


def _choice(
    run: GenerationRun,
    body: ChatRequest,
    writer: ReasoningWriter,
    index: int,
    output: ChoiceOutput,
) -> dict[str, Any]:
    token_bytes = run.engine.tokenizer.token_bytes
    choice: dict[str, Any] = {
        "index": index,
        "message": writer.message(output),
        "logprobs": chat_logprobs(output.logprobs, token_bytes) if body.logprobs else None,
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
    }
    if body.return_token_ids:
        choice["token_ids"] = output.token_ids
    return choice


def _events(
    run: GenerationRun, offload: Offload, body: ChatRequest, writer: ReasoningWriter
) -> AsyncGenerator[dict[str, Any] | str, None]:
    begun: set[int] = set()

    def chunks(index: int, output: RequestOutput) -> Iterator[dict[str, Any]]:
        if index not in begun:
            begun.add(index)
            yield _first_chunk(run, index, body)
        yield _chunk(run, index, output, body, writer.delta(output))

    return chunk_events(run, "chat.completion.chunk", body.stream_options, chunks, offload)


def _first_chunk(run: GenerationRun, index: int, body: ChatRequest) -> dict[str, Any]:
    delta = {"role": "assistant", "content": ""}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    if body.return_token_ids and index == 0:
        prompt_token_ids = list(run.requests[0].prompt_token_ids)
        return {"choices": [choice], "prompt_token_ids": prompt_token_ids}
    return {"choices": [choice]}


def _chunk(
    run: GenerationRun,
    index: int,
    output: RequestOutput,
    body: ChatRequest,
    delta: dict[str, str],
) -> dict[str, Any]:
    token_bytes = run.engine.tokenizer.token_bytes
    choice: dict[str, Any] = {
        "index": index,
        "delta": delta,
        "logprobs": chat_logprobs(output.logprobs, token_bytes) if body.logprobs else None,
        "finish_reason": output.finish_reason,
    }
    if output.finish_reason is not None:
        choice["stop_reason"] = output.stop_reason
    if body.return_token_ids:
        choice["token_ids"] = list(output.token_ids)
    return {"choices": [choice]}
