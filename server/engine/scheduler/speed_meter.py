"""The machine's pace, measured step by step."""

from __future__ import annotations

from typing import Final

from .pace import Pace, Work

__all__ = ["SpeedMeter"]

_FIRST_TOKENS: Final = 32
"""Tokens that fit into `max_chunk_seconds` before anything has been measured."""

_WIDTHS_A_TOKEN: Final = 4
"""Pairs, in widths of the model, that are first thought to cost what one token costs."""

_MOST_CHANGE: Final = 4.0  # of one measurement: a stall is not the machine's new pace
_WEIGHT: Final = 0.5  # of a measurement against those before it
_OVERHEAD_WEIGHT: Final = 0.25
_LEAST_SHARE: Final = 0.25  # of a step's time that its work is said to have taken


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
        """What is known by now; None where steps are not limited by time."""
        return self._pace if self._pace.max_chunk_seconds else None

    def observe(self, work: Work, seconds: float) -> None:
        """Learn from a step that did `work` in `seconds`."""
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
