"""Checks that a request can be served at all, before it is queued."""

from __future__ import annotations

from dataclasses import dataclass

from server.engine.errors import InvalidSamplingError, PromptTooLongError, RequestRejectedError
from server.engine.request import GenerationRequest, Request
from server.engine.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Bounds of one step and of the queue; see `EngineConfig`.

    `max_num_prompt_logits`: most rows of logits over the vocabulary that one step holds for scores
    and prompt log-probabilities; longer windows take several steps.
    """

    max_model_len: int
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_num_prompt_logits: int = 512
    max_queued_requests: int = 1024
    max_queued_tokens: int = 1_000_000


def check_length(request: Request, limits: SchedulerLimits, num_cache_tokens: int) -> None:
    """Check that a request can be computed when it has the engine to itself.

    Raises:
        PromptTooLongError: It exceeds the context, or the keys and values all blocks can hold, or
            leaves no token for an answer that it wants as long as fits.
        RequestRejectedError: Its prompt is empty, or its `min_tokens` do not fit.
    """
    num_tokens, max_tokens = request.num_prompt_tokens, request.max_tokens
    if num_tokens == 0:
        raise RequestRejectedError(
            "the prompt has no tokens; expected at least one", param="prompt"
        )
    request.spec.sampling.check_room(num_tokens, limits.max_model_len)
    num_stored = num_tokens + max(max_tokens - 1, 0)  # the last token is never run
    if num_stored > num_cache_tokens:
        raise PromptTooLongError(
            f"the request may need keys and values of {num_stored:,} tokens and the cache holds "
            f"{num_cache_tokens:,}; shorten it or start the server with more cache memory",
            param="prompt" if num_tokens > num_cache_tokens else "max_tokens",
        )


def check_request(request: Request, vocab_size: int) -> None:
    """Check that this model can do what a request asks, as far as limits do not decide it.

    Raises:
        InvalidSamplingError: A sampling parameter names a token id that the model has not.
        RequestRejectedError: The prompt has such an id, or lacks the regions, or the token to
            decide a gate on, that its steering needs.
    """
    _check_sampling(request.spec.sampling, vocab_size)
    _check_prompt(request.spec, vocab_size)
    _check_steering(request)


def _check_sampling(params: SamplingParams, vocab_size: int) -> None:
    fields = {"logit_bias": params.logit_bias, "stop_token_ids": params.stop_token_ids}
    for name, token_ids in fields.items():
        for token_id in token_ids:
            if not 0 <= token_id < vocab_size:
                raise InvalidSamplingError(
                    f"{name} names token {token_id}; expected ids from 0 to {vocab_size - 1}",
                    param=name,
                )


def _check_prompt(spec: GenerationRequest, vocab_size: int) -> None:
    outside = next((t for t in spec.prompt_token_ids if not 0 <= t < vocab_size), None)
    if outside is not None:
        raise RequestRejectedError(
            f"prompt contains the token id {outside}; this model has ids 0 to {vocab_size - 1}",
            param="prompt",
        )


def _check_steering(request: Request) -> None:
    plan = request.spec.plan
    if plan is None:
        return
    if plan.uses_regions and request.spec.prompt_regions is None:
        raise RequestRejectedError(
            "the steering's scope names regions, but the prompt has none; send messages to a model "
            "whose template keeps them apart, or use tokens and windows",
            param=plan.region_scope,
        )
    if plan.latches and request.boundary < 1:
        raise RequestRejectedError(
            "the prompt ends at 0 for steering, and a gate per request is decided on its last "
            "token; expected at least one",
            param="steering",
        )
