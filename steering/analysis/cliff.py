"""The refusal cliff: how far a rollout's score falls between thought and answer, and its use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steering.errors import InvalidFieldError

PLATEAU_TRIM: Final = 3
"""Tokens at the end of a thought that do not count towards its plateau."""


@dataclass(frozen=True, slots=True)
class ThoughtSpan:
    """Where a thought is in a sequence that ends where its answer would begin.

    Attributes:
        start: First token of the thought, after its opening marker.
        stop: One past its last token: where the end-of-thinking template begins.
        end: One past the last token of that template; the sequence's length.
    """

    start: int
    stop: int
    end: int

    @property
    def num_tokens(self) -> int:
        """Tokens of the thought."""
        return self.stop - self.start


class Plateau(StrEnum):
    """How the score of a whole thought becomes one number.

    A published review of the paper says that it takes the maximum; its code, which ranks rollouts
    by their final score alone, computes neither. The maximum over n tokens grows with n where the
    probe is noisy, so that long thoughts seem to fall further.
    """

    MEAN = "mean"
    MAX = "max"

    def of(self, scores: NDArray[np.float64]) -> float:
        """The number for scores [n], n > 0."""
        return float(scores.max() if self is Plateau.MAX else scores.mean())


@dataclass(frozen=True, slots=True)
class Cliff:
    """The three numbers of a score curve, in units of its probabilities (0 to 1).

    Attributes:
        plateau: Mean or maximum score of the thought, its last few tokens left out.
        final: Score of the last token before the answer.
        cliff: plateau - final; positive where the model thinks of refusing and then does not.
    """

    plateau: float
    final: float
    cliff: float


def measure_cliff(
    curve: ArrayLike,
    thought: ThoughtSpan,
    *,
    trim: int = PLATEAU_TRIM,
    plateau: Plateau = Plateau.MEAN,
) -> Cliff:
    """plateau = mean or maximum of s_t over the thought less its last `trim` tokens; final = s_T.

    Args:
        curve: [T], scores of all tokens up to the end of the end-of-thinking template.
        thought: Where the thought is; `end` is T.
        trim: Tokens left out at the thought's end; at least one token always counts.
        plateau: Whether the plateau is the mean or the maximum.

    Raises:
        InvalidFieldError: The thought is empty, outside the curve, or `trim` negative.

    Source: Refusal Cliff, arXiv:2510.06036; the paper's formula is not public, this one follows
        its description.
    """
    scores = np.asarray(curve, dtype=np.float64)
    if not (0 <= thought.start < thought.stop <= thought.end and thought.end == len(scores)):
        raise InvalidFieldError(
            f"thought is [{thought.start}, {thought.stop}) and ends at {thought.end}; expected one "
            f"token or more, within a curve of {len(scores)} that ends with it",
            param="thought",
        )
    if trim < 0:
        raise InvalidFieldError(f"trim is {trim}; expected 0 or more tokens", param="trim")
    last = max(thought.stop - trim, thought.start + 1)
    level, final = plateau.of(scores[thought.start : last]), float(scores[-1])
    return Cliff(level, final, level - final)


class JudgeRule(StrEnum):
    """What rollouts are ranked by.

    `cliff`: plateau - s_T, largest first. `final`: s_T, smallest first, which is what the published
    code does and the same order wherever the plateaus are equal.
    """

    CLIFF = "cliff"
    FINAL = "final"


def rank_rollouts(cliffs: Sequence[Cliff], rule: JudgeRule = JudgeRule.CLIFF) -> tuple[int, ...]:
    """Indices of rollouts, the one to train on first; equal ones in the order given.

    Source: Refusal Cliff, arXiv:2510.06036 (Cliff-as-a-Judge).
    """
    keys = [-c.cliff if rule is JudgeRule.CLIFF else c.final for c in cliffs]
    return tuple(int(index) for index in np.argsort(keys, kind="stable"))


def num_selected(count: int, fraction: float) -> int:
    """How many of `count` rollouts a fraction in (0, 1] takes: rounded, at least one.

    Raises:
        InvalidFieldError: A fraction outside (0, 1].
    """
    if not 0.0 < fraction <= 1.0:
        raise InvalidFieldError(
            f"fraction is {fraction:g}; expected more than 0 and at most 1", param="fraction"
        )
    return min(count, max(1, round(fraction * count)))
