"""What one step computes: a value, and the builder that keeps to its budget."""

from __future__ import annotations

from dataclasses import dataclass

from server.engine.request import Request

__all__ = ["ScheduledRequest", "SchedulerOutput", "StepBuilder"]


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """Tokens of one request to compute in a step: absolute positions [start, stop).

    Attributes:
        request: Whose tokens; its `block_table` covers them.
        start: First position, equal to the request's `num_computed_tokens`.
        num_tokens: How many, at least 1.
        is_last_chunk: Whether they end with the last known token, whose logits are sampled.
        latches: Whether they end with the token on which the request's gates are decided; it is
            computed again under what is decided, and nothing is sampled before.
    """

    request: Request
    start: int
    num_tokens: int
    is_last_chunk: bool
    latches: bool = False

    @property
    def stop(self) -> int:
        """Position after the last one."""
        return self.start + self.num_tokens


@dataclass(frozen=True, slots=True)
class SchedulerOutput:
    """One step.

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


class StepBuilder:
    """A step being put together.

    Attributes:
        budget: Tokens left.
        logit_budget: Logits of prompt tokens left.
        is_blocked: Whether no further request may be admitted in this step.
    """

    def __init__(self, budget: int, logit_budget: int) -> None:
        self.budget = budget
        self.logit_budget = logit_budget
        self.is_blocked = False
        self.scheduled: dict[str, ScheduledRequest] = {}
        self.preempted: list[Request] = []

    def __contains__(self, request: Request) -> bool:
        return request.request_id in self.scheduled

    def take(self, request: Request) -> None:
        """Schedule as many of the request's tokens as the budgets allow."""
        start = request.num_computed_tokens
        first, last = request.logit_window
        first = max(first, start)
        num_tokens = min(request.num_ready_tokens - start, self.budget)
        if min(last, start + num_tokens) - first > self.logit_budget:
            num_tokens = first - start + self.logit_budget
        if num_tokens > 0:
            stop = start + num_tokens
            latches = request.is_latching and stop == request.boundary
            self.scheduled[request.request_id] = ScheduledRequest(
                request,
                start,
                num_tokens,
                is_last_chunk=stop == request.num_tokens and not latches,
                latches=latches,
            )
            self.budget -= num_tokens
            self.logit_budget -= max(min(last, start + num_tokens) - first, 0)
