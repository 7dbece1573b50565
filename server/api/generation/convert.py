"""From the models of requests, as clients write them, to requests of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from server.api.http.errors import InvalidParameterError
from server.api.schemas.chat import ChatRequest
from server.api.schemas.completions import CompletionRequest
from server.api.schemas.sampling import GenerationFields
from server.engine.engine import Engine
from server.engine.outputs import EngineInfo
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingDefaults, SamplingParams
from server.resolver.errors import SteeringConflictError
from server.resolver.resolution import ResolvedSteering
from steering.documents import PositionContext
from steering.errors import InvalidFieldError

from .prompts import Prompt, check_token_ids

if TYPE_CHECKING:
    from server.engine.text import Tokenizer

BOUNDARY_HEADER: Final = "X-Steering-Prompt-Tokens"
"""Says how to find where `prompt` ends, for harnesses that have no field of their own to say it.

lm-eval sends context and continuation as one list of token ids. A header that it sends with every
request says that the boundary is after what opens the last turn of an assistant, as the model's
chat template writes it.
"""

_ASSISTANT_TURN: Final = "assistant-turn"
"""The one value of that header."""

_DEFAULT_COMPLETION_TOKENS: Final = 16  # OpenAI's


@dataclass(frozen=True, slots=True)
class EngineRequests:
    """What one HTTP request asks of the engine.

    Attributes:
        requests: One per choice of each prompt, choices of one prompt beside each other.
        baselines: The same without steering, where a comparison is asked for; otherwise none.
    """

    requests: tuple[GenerationRequest, ...]
    baselines: tuple[GenerationRequest, ...]


def chat_sampling(
    body: ChatRequest, info: EngineInfo, defaults: SamplingDefaults, num_prompt_tokens: int
) -> SamplingParams:
    """Return how a chat is sampled: as it says, else by the defaults.

    Where neither says how long an answer may be, it may fill the context.
    """
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    room = info.max_model_len - num_prompt_tokens
    if limit is None and defaults.max_tokens is not None and room > 0:
        limit = min(max(defaults.max_tokens, body.min_tokens), room)
    sampling = _sampling(body, info, defaults, limit)
    if not body.logprobs:
        return sampling
    return replace(sampling, logprobs=body.top_logprobs or 0)


def completion_sampling(
    body: CompletionRequest, info: EngineInfo, defaults: SamplingDefaults
) -> SamplingParams:
    """Return how completions are sampled; `echo` with `logprobs` asks for the prompt's too.

    The length of an answer that the defaults give is that of chats.
    """
    limit = _DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    sampling = replace(_sampling(body, info, defaults, limit), logprobs=body.logprobs)
    if body.echo and body.logprobs is not None:
        counts = [count for count in (body.logprobs, body.prompt_logprobs) if count is not None]
        return replace(sampling, prompt_logprobs=max(counts))
    return sampling


def _sampling(
    body: GenerationFields, info: EngineInfo, defaults: SamplingDefaults, max_tokens: int | None
) -> SamplingParams:
    logit_bias = {int(key): value for key, value in body.logit_bias.items()}
    for name, ids in (("logit_bias", logit_bias), ("stop_token_ids", body.stop_token_ids)):
        check_token_ids(list(ids), info, name)
    own = SamplingDefaults(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
    )
    sampled = replace(own.over(defaults), max_tokens=None)
    return SamplingParams(
        **sampled.given(),
        max_tokens=max_tokens,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
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
    """Check that each prompt leaves room for its answer, before it is checked for anything else.

    Raises:
        PromptTooLongError: A prompt leaves none; `param` is that given, or `max_tokens`.
        InvalidSamplingError: A prompt leaves none for `min_tokens`.
    """
    for prompt in prompts:
        sampling.check_room(len(prompt.token_ids), info.max_model_len, param=param)


def engine_requests(
    engine: Engine,
    request_id: str,
    prompts: Sequence[Prompt],
    sampling: SamplingParams,
    steering: ResolvedSteering,
    *,
    num_choices: int,
    cache_salt: bytes,
) -> EngineRequests:
    """Make an engine request for each choice of each prompt, and unsteered ones to compare with.

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
                    is_thinking=prompt.is_thinking,
                    steering_prompt_tokens=boundary,
                )
            )
    baselines = [
        replace(request, request_id=f"{request.request_id}-base", plan=None)
        for request in steered
        if steering.is_compared
    ]
    return EngineRequests(tuple(steered), tuple(baselines))


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


def with_boundaries(
    header: str | None,
    steering: ResolvedSteering,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
) -> ResolvedSteering:
    """Return the steering with `prompt_tokens` found as the header says, unchanged without one.

    Raises:
        InvalidParameterError: The header has a value that is not `assistant-turn`.
        SteeringConflictError: The body also says where the prompt ends.
        InvalidFieldError: A prompt has no turn of an assistant.
    """
    if header is None:
        return steering
    if header != _ASSISTANT_TURN:
        raise InvalidParameterError(
            f"{BOUNDARY_HEADER} is {header!r}; expected {_ASSISTANT_TURN!r}", param=BOUNDARY_HEADER
        )
    if steering.prompt_tokens:
        raise SteeringConflictError(
            f"steering.prompt_tokens and the header {BOUNDARY_HEADER} are both given; give one",
            param="steering.prompt_tokens",
        )
    if steering.plan is None:
        return steering
    opening = _opening(tokenizer)
    boundaries = tuple(_boundary(prompt.token_ids, opening) for prompt in prompts)
    return replace(steering, prompt_tokens=boundaries)


def _opening(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens that the chat template writes before an answer."""
    messages = [{"role": "user", "content": "."}]
    with_it = tokenizer.render_chat(messages, add_generation_prompt=True).token_ids
    without = tokenizer.render_chat(messages, add_generation_prompt=False).token_ids
    return tuple(with_it[len(without) :]) if with_it[: len(without)] == without else ()


def _boundary(token_ids: Sequence[int], opening: tuple[int, ...]) -> int:
    width = len(opening)
    for start in range(len(token_ids) - width, -1, -1) if width else ():
        if tuple(token_ids[start : start + width]) == opening:
            return start + width
    raise InvalidFieldError(
        f"a prompt has no turn of an assistant, which {BOUNDARY_HEADER}: {_ASSISTANT_TURN} needs; "
        "send token ids with the chat template applied, or steering.prompt_tokens",
        param=BOUNDARY_HEADER,
    )
