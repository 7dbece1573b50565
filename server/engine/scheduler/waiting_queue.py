"""The requests that wait, in the order in which they are served."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from server.engine.errors import QueueFullError
from server.engine.request import Priority, Request

from .admission import SchedulerLimits


class WaitingQueue:
    """Requests by priority, then by arrival; a preempted request is back in its old place."""

    def __init__(self) -> None:
        self.num_prompt_tokens = 0
        self._queues: dict[Priority, list[Request]] = {priority: [] for priority in Priority}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Request]:
        for queue in self._queues.values():
            yield from queue

    def of(self, priority: Priority) -> list[Request]:
        """A snapshot of one priority's queue, first in line first."""
        return list(self._queues[priority])

    def check_room(self, request: Request, limits: SchedulerLimits) -> None:
        """Check that a new request may wait; any single one may wait in an empty queue.

        Raises:
            QueueFullError: Too many requests or prompt tokens wait already.
        """
        if len(self) >= limits.max_queued_requests:
            raise QueueFullError(f"{len(self):,} requests wait already, the limit; try again later")
        num_tokens = self.num_prompt_tokens + request.num_prompt_tokens
        if len(self) > 0 and num_tokens > limits.max_queued_tokens:
            raise QueueFullError(
                f"{self.num_prompt_tokens:,} prompt tokens wait already and this request has "
                f"{request.num_prompt_tokens:,}; at most {limits.max_queued_tokens:,} may wait; "
                "try again later"
            )

    def add(self, request: Request) -> None:
        """Put a request in its place by arrival."""
        insort(self._queues[request.spec.priority], request, key=_arrival)
        self.num_prompt_tokens += request.num_prompt_tokens

    def remove(self, request: Request) -> None:
        """Take a request out."""
        self._queues[request.spec.priority].remove(request)
        self.num_prompt_tokens -= request.num_prompt_tokens


def _arrival(request: Request) -> int:
    return request.arrival
