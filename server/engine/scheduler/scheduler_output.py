"""The tokens that one step computes: a value, and the builder that keeps to its budgets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from server.engine.request import Request

from .pace import Pace, Work, num_pairs

_LEAST_CHUNK: Final = 16
"""Tokens a chunk has however long they take, and a multiple of which it has where time cuts it."""


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """Tokens of one request to compute in a step: absolute positions [start, stop).

    Attributes:
        request: The request; its `block_table` covers the tokens.
        start: First position, equal to the request's `num_computed_tokens`.
        num_tokens: Number of tokens, at least 1.
        is_last_chunk: Whether they end with the last known token, whose logits are sampled.
        latches: Whether they end with the token on which the request's gates are decided; it is
            computed again under what is decided, and nothing is sampled before.
        drafts: Guesses of the tokens after the last known one, which run with it; the last of the
            `num_tokens`.
    """

    request: Request
    start: int
    num_tokens: int
    is_last_chunk: bool
    latches: bool = False
    drafts: tuple[int, ...] = ()

    @property
    def is_decode(self) -> bool:
        """Whether it is the one token of a decode, with its drafts."""
        return self.is_last_chunk and self.num_tokens == 1 + len(self.drafts)

    @property
    def num_sampled(self) -> int:
        """Number of tokens sampled after it, one more than drafts; 0 where nothing is sampled."""
        is_sampled = self.is_last_chunk and self.request.max_tokens > 0
        return 1 + len(self.drafts) if is_sampled else 0

    @property
    def token_ids(self) -> list[int]:
        """The tokens to run, [num_tokens]; valid until it is run."""
        return [*self.request.token_ids(self.start, self.stop - len(self.drafts)), *self.drafts]

    def with_drafts(self, drafts: tuple[int, ...]) -> ScheduledRequest:
        """The same decode with guesses that run after it."""
        return replace(self, num_tokens=1 + len(drafts), drafts=drafts)

    @property
    def stop(self) -> int:
        """Position after the last one."""
        return self.start + self.num_tokens

    @property
    def num_prompt_logits(self) -> int:
        """Number of tokens whose logits are returned beside those sampled; valid until run."""
        first, last = self.request.logit_window
        if last <= self.start:  # as of every decode
            return 0
        return max(min(last, self.stop) - max(first, self.start), 0)

    @property
    def work(self) -> Work:
        """The work of computing it; valid until it is run."""
        return Work.of_chunk(self.start, self.num_tokens, self.num_prompt_logits, len(self.drafts))


@dataclass(frozen=True, slots=True)
class SchedulerOutput:
    """What the scheduler has chosen for one step.

    Attributes:
        scheduled: Decodes and chunks, in the order of the packed batch.
        preempted: Requests that lost their blocks; they wait and will be computed again.
    """

    scheduled: tuple[ScheduledRequest, ...]
    preempted: tuple[Request, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens of the packed batch."""
        return sum(item.num_tokens for item in self.scheduled)

    @property
    def work(self) -> Work:
        """The work of the whole step; valid until it is run."""
        parts = tokens = pairs = logits = (
            0  # A step may be hundreds of decodes: no `Work` for each.
        )
        for part in self.scheduled:
            parts += 1 + len(part.drafts)
            tokens += part.num_tokens
            pairs += num_pairs(part.start, part.num_tokens)
            logits += part.num_prompt_logits
        return Work(parts, tokens, pairs, logits)


class _BudgetShare(NamedTuple):
    """A request's share of a step's budgets."""

    tokens: int
    logits: int
    seconds: float


class StepBuilder:
    """A step being put together.

    Attributes:
        budget: Number of tokens left.
        logit_budget: Number of rows of prompt logits left.
        seconds: Time left for chunks of prompts; decodes take none of it.
        is_blocked: Whether no further request may be admitted in this step.
    """

    def __init__(
        self, budget: int, logit_budget: int, pace: Pace | None = None, seconds: float = math.inf
    ) -> None:
        self.budget = budget
        self.logit_budget = logit_budget
        self.seconds = seconds
        self.is_blocked = False
        self.scheduled: dict[str, ScheduledRequest] = {}
        self.preempted: list[Request] = []
        self._pace = pace
        self._taken: dict[str, _BudgetShare] = {}

    def __contains__(self, request: Request) -> bool:
        return request.request_id in self.scheduled

    @property
    def is_spent(self) -> bool:
        """Whether no chunk can be added."""
        return self.budget == 0 or self.seconds <= 0.0

    def take(self, request: Request, share: float = 1.0) -> None:
        """Schedule as many of the request's tokens as the budgets allow, in place of those before.

        Args:
            request: Running.
            share: Largest part of what is left of each budget that it may take, from 0 to 1.
        """
        self._give_back(request)
        part = self._part(request, self._num_tokens(request, share))
        if part.num_tokens <= 0:
            return
        seconds = 0.0
        if self._pace is not None and part.num_tokens > 1:
            seconds = min(self._pace.seconds(part.work), share * self.seconds)
        taken = _BudgetShare(part.num_tokens, part.num_prompt_logits, seconds)
        self.scheduled[request.request_id] = part
        self._taken[request.request_id] = taken
        self.budget -= taken.tokens
        self.logit_budget -= taken.logits
        self.seconds -= taken.seconds

    def _give_back(self, request: Request) -> None:
        taken = self._taken.pop(request.request_id, None)
        if taken is None:
            return
        self.budget += taken.tokens
        self.logit_budget += taken.logits
        self.seconds += taken.seconds

    def _num_tokens(self, request: Request, share: float) -> int:
        start = request.num_computed_tokens
        first, last = request.logit_window
        first = max(first, start)
        num_tokens = min(request.num_ready_tokens - start, math.ceil(share * self.budget))
        if self._pace is not None and num_tokens > 1:
            most = self._pace.most_tokens(
                start, max(share * self.seconds, 0.0), has_logits=first < last
            )
            if most < num_tokens:
                most = max(most - most % _LEAST_CHUNK, _LEAST_CHUNK if self.seconds > 0.0 else 0)
                num_tokens = min(num_tokens, most)
        logits = math.ceil(share * self.logit_budget)
        if min(last, start + num_tokens) - first > logits:
            num_tokens = first - start + logits
        return num_tokens

    def _part(self, request: Request, num_tokens: int) -> ScheduledRequest:
        start = request.num_computed_tokens
        stop = start + num_tokens
        latches = request.is_latching and stop == request.boundary
        is_last_chunk = stop == request.num_tokens and not latches
        return ScheduledRequest(request, start, num_tokens, is_last_chunk, latches)
