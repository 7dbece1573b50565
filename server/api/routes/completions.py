"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.api.deps import ActorDep, CallerDep, Services, ServicesDep, operation
from server.api.generation.answer import (
    chunk_events,
    completion_logprobs,
    prompt_logprobs,
    respond,
    whole_answer,
)
from server.api.generation.convert import (
    BOUNDARY_HEADER,
    check_room,
    completion_sampling,
    with_boundaries,
)
from server.api.generation.outputs import ChoiceOutput
from server.api.generation.prompts import Prompt, read_prompts
from server.api.generation.run import GenerationRun, prepare_run
from server.api.generation.steering_choice import PROFILE_HEADER, choose_steering
from server.api.http.body import Offload, Strictness
from server.api.request_body import QueuedBody, held_place
from server.api.schemas.completions import Completion, CompletionRequest
from server.auth.permissions import Permission, Principal
from server.engine.outputs import RequestOutput, TokenLogprobs
from server.resolver.resolution import ResolvedSteering

router = APIRouter(tags=["OpenAI"])

_BOUNDARY: Final[dict[str, Any]] = {
    "in": "header",
    "name": BOUNDARY_HEADER,
    "description": "`assistant-turn`: the prompt ends where the last assistant's turn begins.",
    "schema": {"type": "string", "enum": ["assistant-turn"]},
}

_Body = Annotated[
    CompletionRequest,
    Depends(QueuedBody(CompletionRequest, Strictness.OPENAI, lambda limits: limits.prompts)),
]


@router.post(
    "/v1/completions",
    response_model=Completion,
    openapi_extra=operation(Permission.CHAT, PROFILE_HEADER, _BOUNDARY, is_queued=True),
)
async def create_completion(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    actor: ActorDep,
    body: _Body,
) -> Response:
    """Continue one or more prompts, steered as the request chooses."""
    header = request.headers.get(BOUNDARY_HEADER)
    with held_place(request):
        steering = await choose_steering(
            request, services, caller, actor, body, seeks_boundary=header is not None
        )
        run, echo = await services.offload.run(
            request, _run, services, caller, body, steering, header
        )
    return await respond(request, services, run, echo.answer, echo.events, is_stream=body.stream)


def _run(
    services: Services,
    caller: Principal,
    body: CompletionRequest,
    steering: ResolvedSteering,
    header: str | None,
) -> tuple[GenerationRun, _Echo]:
    info = services.engine.info()
    prompts = read_prompts(
        services.engine.tokenizer, body, info, max_prompts=services.limits.max_prompts
    )
    sampling = completion_sampling(body, info, services.sampling)
    check_room(prompts, sampling, info, "prompt")
    steering = with_boundaries(header, steering, prompts, services.engine.tokenizer)
    identity = services.identify_answer("cmpl", body.model)
    run = prepare_run(services, caller, identity, prompts, sampling, steering, num_choices=body.n)
    return run, _Echo(body, prompts, services)


class _Echo:
    """The answer's shape; knows the prompts, which `echo` repeats."""

    def __init__(self, body: CompletionRequest, prompts: list[Prompt], services: Services) -> None:
        self._body = body
        self._tokenizer = services.engine.tokenizer
        self._prompts = prompts
        self._texts = [
            (prompt.text if prompt.text is not None else self._tokenizer.decode(prompt.token_ids))
            if body.echo
            else ""
            for prompt in prompts
        ]

    def answer(self, run: GenerationRun) -> dict[str, Any]:
        """The answer to a request that is not streamed."""
        return whole_answer(run, "text_completion", self._choice)

    def events(
        self, run: GenerationRun, offload: Offload
    ) -> AsyncGenerator[dict[str, Any] | str, None]:
        """The answer in chunks."""
        offsets: dict[int, int] = {}  # characters of each choice's tokens so far

        def chunks(index: int, output: RequestOutput) -> list[dict[str, Any]]:
            return [{"choices": [self._chunk(index, output, offsets)]}]

        return chunk_events(run, "text_completion", self._body.stream_options, chunks, offload)

    def _choice(self, index: int, output: ChoiceOutput) -> dict[str, Any]:
        body, prompt = self._body, self._prompts[index // self._body.n]
        choice: dict[str, Any] = {
            "index": index,
            "text": self._texts[index // body.n] + output.text,
            "logprobs": self._logprobs(index, output.prompt_logprobs, output.logprobs, 0),
            "finish_reason": output.finish_reason,
            "stop_reason": output.stop_reason,
        }
        if body.prompt_logprobs is not None:
            choice["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs or ())
        if body.return_token_ids:
            choice["prompt_token_ids"] = list(prompt.token_ids)
            choice["token_ids"] = output.token_ids
        return choice

    def _chunk(self, index: int, output: RequestOutput, offsets: dict[int, int]) -> dict[str, Any]:
        is_first, offset = index not in offsets, offsets.get(index, 0)
        of_prompt = output.prompt_logprobs if is_first else None
        logprobs = self._logprobs(index, of_prompt, output.logprobs, offset)
        # Of the tokens, which may be ahead of the text, as in an answer that comes whole.
        offsets[index] = offset + sum(map(len, logprobs["tokens"] if logprobs else ()))
        choice: dict[str, Any] = {
            "index": index,
            "text": (self._texts[index // self._body.n] if is_first else "") + output.text,
            "logprobs": logprobs,
            "finish_reason": output.finish_reason,
        }
        if output.finish_reason is not None:
            choice["stop_reason"] = output.stop_reason
        if self._body.return_token_ids:
            if is_first:
                prompt = self._prompts[index // self._body.n]
                choice["prompt_token_ids"] = list(prompt.token_ids)
            choice["token_ids"] = list(output.token_ids)
        return choice

    def _logprobs(
        self,
        index: int,
        of_prompt: tuple[TokenLogprobs | None, ...] | None,
        generated: tuple[TokenLogprobs, ...] | list[TokenLogprobs],
        offset: int,
    ) -> dict[str, Any] | None:
        if self._body.logprobs is None:
            return None
        entries = [*(of_prompt or ()), *generated] if self._body.echo else list(generated)
        first_id = self._prompts[index // self._body.n].token_ids[:1]
        first = self._tokenizer.decode(first_id) if entries and entries[0] is None else ""
        return completion_logprobs(entries, first, offset)
