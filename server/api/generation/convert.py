"""From wire models to what the engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from server.api.schemas.chat import ChatRequest
from server.api.schemas.completions import CompletionRequest
from server.api.schemas.sampling import GenerationFields
from server.engine.engine import Engine
from server.engine.outputs import EngineInfo
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from server.resolver.resolution import ResolvedSteering
from steering.errors import InvalidFieldError
from steering.scopes import PositionContext

from .prompts import Prompt, check_token_ids

__all__ = ["Sequences", "chat_sampling", "check_room", "completion_sampling", "sequences"]

_DEFAULT_COMPLETION_TOKENS: Final = 16  # OpenAI's


@dataclass(frozen=True, slots=True)
class Sequences:
    """What one HTTP request asks of the engine; see `Run`."""

    requests: tuple[GenerationRequest, ...]
    baselines: tuple[GenerationRequest, ...]


def chat_sampling(body: ChatRequest, info: EngineInfo) -> SamplingParams:
    """How the answers of a chat are sampled; `max_tokens` as many as fit where none is given."""
    limit = body.max_completion_tokens
    sampling = _sampling(body, info, body.max_tokens if limit is None else limit)
    if not body.logprobs:
        return sampling
    return replace(sampling, logprobs=body.top_logprobs or 0)


def completion_sampling(body: CompletionRequest, info: EngineInfo) -> SamplingParams:
    """How completions are sampled; `echo` with `logprobs` asks for those of the prompt too."""
    limit = _DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    sampling = replace(_sampling(body, info, limit), logprobs=body.logprobs)
    if body.echo and body.logprobs is not None:
        counts = [count for count in (body.logprobs, body.prompt_logprobs) if count is not None]
        return replace(sampling, prompt_logprobs=max(counts))
    return sampling


def _sampling(body: GenerationFields, info: EngineInfo, max_tokens: int | None) -> SamplingParams:
    logit_bias = {int(key): value for key, value in body.logit_bias.items()}
    for name, ids in (("logit_bias", logit_bias), ("stop_token_ids", body.stop_token_ids)):
        check_token_ids(list(ids), info, name)
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=logit_bias,
        seed=body.seed,
        stop=tuple(body.stop),
        stop_token_ids=tuple(body.stop_token_ids),
        ignore_eos=body.ignore_eos,
        min_tokens=body.min_tokens,
        prompt_logprobs=body.prompt_logprobs,
    )


def check_room(
    prompts: Sequence[Prompt], sampling: SamplingParams, info: EngineInfo, param: str
) -> None:
    """Check that each prompt leaves room for its answer, before anything else is said of it.

    Raises:
        PromptTooLongError: One does not; of `param`, or of `max_tokens`.
        InvalidSamplingError: Not for `min_tokens`.
    """
    for prompt in prompts:
        sampling.check_room(len(prompt.token_ids), info.max_model_len, param=param)


def sequences(
    engine: Engine,
    request_id: str,
    prompts: Sequence[Prompt],
    sampling: SamplingParams,
    steering: ResolvedSteering,
    *,
    num_choices: int,
    cache_salt: bytes,
) -> Sequences:
    """One engine request per choice of each prompt, steered and, where asked, not.

    Raises:
        NoEffectError: The steering touches nothing that influences the answer.
        InvalidFieldError: `prompt_tokens` does not fit the prompts, or regions are not known.
    """
    boundaries = _boundaries(steering, prompts)
    steered = []
    for index, (prompt, boundary) in enumerate(zip(prompts, boundaries, strict=True)):
        _check_effect(steering, prompt, boundary, sampling, engine.info())
        for choice in range(num_choices):
            steered.append(
                GenerationRequest(
                    request_id=f"{request_id}-{index * num_choices + choice}",
                    prompt_token_ids=prompt.token_ids,
                    sampling=sampling,
                    plan=steering.plan,
                    choice_index=choice,
                    cache_salt=cache_salt,
                    prompt_regions=prompt.regions,
                    steering_prompt_tokens=boundary,
                )
            )
    baselines = [
        replace(request, request_id=f"{request.request_id}-base", plan=None)
        for request in steered
        if steering.is_compared
    ]
    return Sequences(tuple(steered), tuple(baselines))


def _boundaries(steering: ResolvedSteering, prompts: Sequence[Prompt]) -> tuple[int | None, ...]:
    given = steering.prompt_tokens
    if not given:
        return (None,) * len(prompts)
    boundaries = given * len(prompts) if len(given) == 1 else given
    if len(boundaries) != len(prompts):
        raise InvalidFieldError(
            f"prompt_tokens has {len(given)} numbers for {len(prompts)} prompts; expected one, or "
            "one for each",
            param="steering.prompt_tokens",
        )
    for boundary, prompt in zip(boundaries, prompts, strict=True):
        if boundary > len(prompt.token_ids):
            raise InvalidFieldError(
                f"prompt_tokens is {boundary}; the prompt has {len(prompt.token_ids)} tokens",
                param="steering.prompt_tokens",
            )
    return tuple(boundaries)


def _check_effect(
    steering: ResolvedSteering,
    prompt: Prompt,
    boundary: int | None,
    sampling: SamplingParams,
    info: EngineInfo,
) -> None:
    plan = steering.plan
    if plan is None:
        return
    if plan.uses_regions and prompt.regions is None:
        raise InvalidFieldError(
            "the steering names regions, which only chats have; use tokens or windows, or send "
            "messages",
            param=plan.region_scope,
        )
    num_tokens = len(prompt.token_ids)
    context = PositionContext(
        num_tokens if boundary is None else boundary,
        None if prompt.regions is None else bytearray(prompt.regions),
    )
    room = max(info.max_model_len - num_tokens, 0)
    try:
        plan.check_effect(
            context,
            num_prompt_tokens=num_tokens,
            max_tokens=room if sampling.max_tokens is None else sampling.max_tokens,
            returns_prompt_logits=sampling.prompt_logprobs is not None,
        )
    except InvalidFieldError as error:
        raise error.under("steering") from None
