"""How fast a machine computes: the time that work takes, and how it is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

_FIRST_TOKENS: Final = 16
"""Tokens that fit into `max_chunk_seconds` before anything has been measured."""

_WIDTHS_A_TOKEN: Final = 4
"""Pairs, in widths of the model, that are first thought to cost what one token costs."""

_MOST_CHANGE: Final = 4.0  # of one measurement: a stall is not the machine's new pace
_WEIGHT: Final = 0.5  # of a measurement against those before it
_OVERHEAD_WEIGHT: Final = 0.25
_LEAST_SHARE: Final = 0.25  # of a step's time that its work is said to have taken


@dataclass(frozen=True, slots=True)
class Work:
    """The amount of work in one step, or in one request's part of it.

    Attributes:
        parts: Number of requests that take part, and of tokens that are drafted for them.
        tokens: Number of tokens that pass through the layers.
        pairs: Number of pairs of a token and one that it attends to, itself included.
        logits: Number of rows of logits over the vocabulary that are returned of prompts.
    """

    parts: int = 0
    tokens: int = 0
    pairs: int = 0
    logits: int = 0

    @classmethod
    def of_chunk(
        cls, start: int, num_tokens: int, num_logits: int = 0, num_drafts: int = 0
    ) -> Self:
        """The work of positions [start, start + num_tokens) of one request, the last ones drafts.

        Each draft is a part of its own: like decodes, and unlike chunks, they read all weights
        for one token, and the pace of chunks is not learned from them.
        """
        return cls(1 + num_drafts, num_tokens, num_pairs(start, num_tokens), num_logits)

    def __add__(self, other: Work) -> Work:
        return Work(
            self.parts + other.parts,
            self.tokens + other.tokens,
            self.pairs + other.pairs,
            self.logits + other.logits,
        )

    @property
    def has_chunks(self) -> bool:
        """Whether any request takes part with more than the one token of a decode."""
        return self.tokens > self.parts


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that each kind of work takes, all positive, and how many prompts may take of a step.

    Attributes:
        seconds_per_token: Time of the layers for one token, without attention.
        seconds_per_pair: Time of attention for one pair, over all layers.
        seconds_per_logit: Time of one row of logits, and of reading it.
        max_chunk_seconds: Longest time that chunks of prompts may add to a step streams wait for.
    """

    seconds_per_token: float
    seconds_per_pair: float
    seconds_per_logit: float
    max_chunk_seconds: float

    def seconds(self, work: Work) -> float:
        """The time that the work takes."""
        return (
            work.tokens * self.seconds_per_token
            + work.pairs * self.seconds_per_pair
            + work.logits * self.seconds_per_logit
        )

    def most_tokens(self, start: int, seconds: float, *, has_logits: bool = False) -> int:
        """Most tokens from position `start` on that take no longer than `seconds`.

        With n tokens the time is n (a + b start) + b n (n + 1) / 2, which is solved for n.

        Args:
            start: Position of the chunk's first token; the later, the more there is to attend to.
            seconds: At least 0.
            has_logits: Whether each token's row of logits is returned.
        """
        pair = self.seconds_per_pair
        token = self.seconds_per_token + (self.seconds_per_logit if has_logits else 0.0)
        linear = token + pair * (start + 0.5)
        # The form of the solution that stays exact where attention costs next to nothing.
        return int(2 * seconds / (linear + math.sqrt(linear**2 + 2 * pair * seconds)))


def num_pairs(start: int, num_tokens: int) -> int:
    """Number of pairs of a position in [start, start + num_tokens) and one up to its own."""
    return num_tokens * start + num_tokens * (num_tokens + 1) // 2


class SpeedMeter:
    """A moving average of seconds per kind of work; owns no clock.

    What a step takes even when it only decodes (reading all weights once) is kept apart: chunks of
    prompts do not add it. What was measured over what was expected, r, is put on every kind of
    work, half because the machine as a whole became faster or slower, and half by the kind's share
    of what was expected:

        c_i <- c_i r^(w (1 + s_i) / 2)    s_i = c_i x_i / sum_j c_j x_j

    so costs stay positive and settle where what is expected is what is measured. The first
    measurement counts in full and for all kinds alike; of a later one, and of every step that only
    decodes, no more than a factor of four, and by w = 1/2. So the first chunks are small and each
    is at most twice the one before.

    Args:
        hidden_size: Width of the model; sets what attention is first thought to cost.
        max_chunk_seconds: See `Pace`; 0 sets no limit.
    """

    def __init__(self, hidden_size: int, max_chunk_seconds: float) -> None:
        per_token = (max_chunk_seconds or 1.0) / _FIRST_TOKENS
        per_pair = per_token / (_WIDTHS_A_TOKEN * hidden_size)
        self._pace = Pace(per_token, per_pair, per_token, max_chunk_seconds)
        self._overhead = 0.0
        self._has_measured = False

    @property
    def pace(self) -> Pace | None:
        """The pace as measured so far; None where steps are not limited by time."""
        return self._pace if self._pace.max_chunk_seconds else None

    def observe(self, work: Work, seconds: float) -> None:
        """Update the pace by a step that did `work` in `seconds`."""
        expected = self._pace.seconds(work)
        if work.has_chunks:
            spent = max(seconds - self._overhead, _LEAST_SHARE * seconds)
            if spent > 0.0:
                self._scale(work, spent / expected)
        else:
            most = _MOST_CHANGE * (expected + self._overhead)
            left = max(min(seconds, most) - expected, 0.0)
            self._overhead += _OVERHEAD_WEIGHT * (left - self._overhead)

    def _scale(self, work: Work, ratio: float) -> None:
        pace, expected = self._pace, self._pace.seconds(work)
        costs = (pace.seconds_per_token, pace.seconds_per_pair, pace.seconds_per_logit)
        if self._has_measured:
            ratio = min(max(ratio, 1 / _MOST_CHANGE), _MOST_CHANGE) ** _WEIGHT
            amounts = (work.tokens, work.pairs, work.logits)
            shares = [cost * x / expected for cost, x in zip(costs, amounts, strict=True)]
        else:
            self._has_measured, shares = True, [1.0, 1.0, 1.0]
        token, pair, logit = (
            cost * float(ratio ** ((1.0 + share) / 2))
            for cost, share in zip(costs, shares, strict=True)
        )
        self._pace = Pace(token, pair, logit, pace.max_chunk_seconds)
