"""What next-token distributions tell: divergence, odds of a behaviour, tokens that begin it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from server.engine.text import Tokenizer
from steering.errors import InvalidFieldError, short_repr

_ROWS: Final = 64  # bounds the float64 copies of distributions


def kl_divergences(plain: Tensor, edited: Tensor) -> list[float]:
    """Return KL(plain || edited) of each row, in nats: sum_v p_v (log p_v - log q_v).

    plain, edited [N, V] are natural-log probabilities of any float dtype; computed in float64.
    """
    values: list[float] = []
    for first, second in zip(*(torch.split(x, _ROWS) for x in (plain, edited)), strict=True):
        p, q = first.double(), second.double()
        terms = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0)
        values += terms.sum(dim=-1).clamp(min=0.0).tolist()  # below 0 by rounding alone
    return values


def token_log_odds(logprobs: Tensor, token_ids: Sequence[int]) -> list[float]:
    """Return log P - log(1 - P) of each row, P the summed probability of `token_ids`.

    logprobs [N, V] are natural-log probabilities. Computed in float64, with 1 - P summed over the
    other tokens, so that P near 1 keeps its digits.

    Source: Arditi et al. 2024, arXiv:2406.11717 (refusal metric).
    """
    chosen = torch.zeros(logprobs.shape[-1], dtype=torch.bool)
    chosen[list(token_ids)] = True
    values: list[float] = []
    for part in torch.split(logprobs, _ROWS):
        rows = part.double()
        inside, outside = (rows[:, mask].logsumexp(dim=-1) for mask in (chosen, ~chosen))
        values += (inside - outside).tolist()
    return values


def distinguishing_tokens(
    positive: Tensor, negative: Tensor, *, min_gain: float = 0.05, max_tokens: int = 8
) -> tuple[int, ...]:
    """Return tokens that begin answers to the positive prompts rather than to the negative ones.

    These are the tokens whose mean probability is at least `min_gain` higher in `positive` than in
    `negative` (both [N, V] natural-log probabilities), the largest gain first, at most
    `max_tokens`. There are none where the first token does not tell the sets apart.
    """
    gains = positive.double().exp().mean(dim=0) - negative.double().exp().mean(dim=0)
    order = gains.argsort(descending=True, stable=True)[:max_tokens].tolist()
    return tuple(token for token in order if float(gains[token]) >= min_gain)


def parse_behaviour_tokens(value: Any, tokenizer: Tokenizer, param: str) -> tuple[int, ...]:
    """Read a list of token ids and texts of one token each.

    Raises:
        InvalidFieldError: Anything else.
    """
    if not isinstance(value, list | tuple) or not value:
        raise InvalidFieldError(
            f"{param} is {short_repr(value)}; expected a list of token ids or texts of one token",
            param=param,
        )
    return tuple(sorted({_token(item, tokenizer, param) for item in value}))


def _token(item: Any, tokenizer: Tokenizer, param: str) -> int:
    if isinstance(item, str):
        found = tokenizer.encode(item, add_special_tokens=False)
        if len(found) == 1:
            return found[0]
        raise InvalidFieldError(
            f"{param} contains {short_repr(item)}, which is {len(found)} tokens; expected texts of "
            "one token, such as the first of an answer",
            param=param,
        )
    if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < tokenizer.vocab_size:
        return item
    raise InvalidFieldError(
        f"{param} contains {short_repr(item)}; expected token ids from 0 to "
        f"{tokenizer.vocab_size - 1} or texts",
        param=param,
    )
