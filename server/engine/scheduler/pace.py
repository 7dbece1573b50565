"""How fast a machine computes, as values: what work costs, and how much of it fits into a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

__all__ = ["Pace", "Work", "num_pairs"]


@dataclass(frozen=True, slots=True)
class Work:
    """What one step, or one request's part of it, asks of the machine.

    Attributes:
        parts: Requests that take part.
        tokens: Tokens that pass through the layers.
        pairs: Pairs of a token and one that it attends to, itself included.
        logits: Rows of logits over the vocabulary that are returned of prompts.
    """

    parts: int = 0
    tokens: int = 0
    pairs: int = 0
    logits: int = 0

    @classmethod
    def of_chunk(cls, start: int, num_tokens: int, num_logits: int = 0) -> Self:
        """Of positions [start, start + num_tokens) of one request."""
        return cls(1, num_tokens, num_pairs(start, num_tokens), num_logits)

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
        seconds_per_token: Of the layers, without attention.
        seconds_per_pair: Of attention over all layers.
        seconds_per_logit: Of a row of logits, and of what is read from it.
        max_chunk_seconds: What chunks of prompts may add to a step that others wait for.
    """

    seconds_per_token: float
    seconds_per_pair: float
    seconds_per_logit: float
    max_chunk_seconds: float

    def seconds(self, work: Work) -> float:
        """What the work takes."""
        return (
            work.tokens * self.seconds_per_token
            + work.pairs * self.seconds_per_pair
            + work.logits * self.seconds_per_logit
        )

    def most_tokens(self, start: int, seconds: float, *, has_logits: bool = False) -> int:
        """Most tokens from position `start` on that take no longer than `seconds`.

        With n tokens the time is n (a + b start) + b n (n + 1) / 2, which is solved for n.

        Args:
            start: Of the chunk; the later, the more there is to attend to.
            seconds: At least 0.
            has_logits: Whether each token's row of logits is returned.
        """
        pair = self.seconds_per_pair
        token = self.seconds_per_token + (self.seconds_per_logit if has_logits else 0.0)
        linear = token + pair * (start + 0.5)
        # The form of the solution that stays exact where attention costs next to nothing.
        return int(2 * seconds / (linear + math.sqrt(linear**2 + 2 * pair * seconds)))


def num_pairs(start: int, num_tokens: int) -> int:
    """Pairs of positions [start, start + num_tokens), each with all up to its own."""
    return num_tokens * start + num_tokens * (num_tokens + 1) // 2
