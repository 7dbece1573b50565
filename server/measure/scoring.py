"""Known text scored with and without steering."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from server.engine.engine import Engine, gather_or_cancel
from server.engine.request import GenerationRequest, ScoreRequest
from server.pools import Compute
from steering.errors import InvalidFieldError

from .next_token import kl_divergences

MAX_LOGITS: Final = 2**26
"""Most numbers of one whole distribution table, positions x vocabulary: 256 MiB in float32."""


@dataclass(frozen=True, slots=True)
class TextScore:
    """Scores at the positions [start, n) of a text of n tokens; logarithms are natural.

    Attributes:
        logprobs: Log-probability of the known token after each position but the last, as steered.
        unsteered: The same without steering; equal where there is none.
        kl: KL(unsteered || steered), in nats, after each position, the last included; empty without
            steering.
    """

    logprobs: tuple[float, ...]
    unsteered: tuple[float, ...]
    kl: tuple[float, ...] = ()

    @property
    def logprob(self) -> float:
        """The log-probability of the whole text scored, as steered."""
        return math.fsum(self.logprobs)


async def score_text(
    engine: Engine, request: GenerationRequest, start: int, compute: Compute
) -> TextScore:
    """Score the tokens of a prompt after position `start`, under its plan and without it.

    Raises:
        InvalidFieldError: Steered, with more than `MAX_LOGITS` numbers of whole distributions.
        EngineError: As `Engine.score`.
    """
    tokens = request.prompt_token_ids
    plan = request.plan
    is_steered = plan is not None and bool(plan.interventions)
    num_logits = (len(tokens) - start) * engine.info().vocab_size
    if is_steered and num_logits > MAX_LOGITS:
        most = MAX_LOGITS // engine.info().vocab_size
        raise InvalidFieldError(
            f"{len(tokens) - start:,} positions are to be compared; expected at most {most:,} with "
            f"a vocabulary of {engine.info().vocab_size:,}; send the text in parts, each as a "
            "continuation",
            param="prompt",
        )
    boundary = request.steering_prompt_tokens
    steered = ScoreRequest(
        request_id=request.request_id,
        prompts=(tokens,),
        plan=plan,
        windows=((start, len(tokens)),),
        full=is_steered,
        steering_prompt_tokens=None if boundary is None else (boundary,),
        prompt_regions=(request.prompt_regions,),
    )
    if not is_steered:
        [logprobs] = (await engine.score(steered)).token_logprobs
        return TextScore(logprobs, logprobs)
    plain = ScoreRequest(
        f"{request.request_id}-base", (tokens,), windows=steered.windows, full=True
    )
    found, base = await gather_or_cancel([engine.score(steered), engine.score(plain)])
    kl = await compute(kl_divergences, base.distributions[0], found.distributions[0])
    return TextScore(found.token_logprobs[0], base.token_logprobs[0], tuple(kl))
