"""Chooses which tokens of which requests the next step computes; no tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from server.engine.errors import RequestRejectedError
from server.engine.kv_cache import KVCacheManager
from server.engine.request import Priority, Request, RequestStatus

from .admission import SchedulerLimits, check_length
from .pace import Pace
from .prompt_lookup import PromptLookup
from .scheduler_output import ScheduledRequest, SchedulerOutput, StepBuilder
from .steering_slots import SteeringSlots
from .waiting_queue import WaitingQueue

_BESIDE: Final = 8
"""Share of a step, as 1 / n, that a lower priority may add to a higher one's."""

_UNWATCHED: Final = 4.0
"""Chunks may take this many times as long where no stream waits for the step they are in.

Every step costs the same however few tokens it has: with a burst of prompts a tenth of the time."""

_JOBS_ALONE: Final = 2.0
"""The same where only jobs are there: whoever comes to chat waits for the end of their step."""

_MAX_DRAFTING_ROWS: Final = 16
"""Decodes of a step, drafts included, from which on drafts cost more than they save."""

_FIRST_SHARE: Final = 0.5
"""Share of what is left of a step for prompts that the first in line may take."""


class Scheduler:
    """Decodes, then prompts; interactive requests before jobs.

    Each priority takes its share of the budgets, in tokens and in seconds, first for decodes and
    then for prompts; so a job gets what interactive requests leave, and beside them an eighth of
    the budgets at most, because they wait for the whole step. Of the prompts, half goes to the
    first in line and the rest to those with the fewest tokens left: a short prompt does not wait
    for a long one, and no stream of short ones keeps a long one waiting, for whoever waits comes
    to be the first in line.

    A request is admitted with blocks for all its known tokens. Where the first in line finds none,
    nobody is admitted past it. Only decoding can run out of blocks, and then the latest request of
    the lowest priority is preempted: it gives its blocks back and computes its prompt and its
    generated tokens again later.

    Used from one thread. A step is `schedule`, the model, then `update` or `finish` for every
    scheduled request.
    """

    def __init__(
        self,
        limits: SchedulerLimits,
        kv_cache: KVCacheManager,
        slots: SteeringSlots | None = None,
        lookup: PromptLookup | None = None,
    ) -> None:
        self.limits = limits
        self.kv_cache = kv_cache
        self.num_preemptions = 0
        self._slots = slots
        self._lookup = lookup
        self._waiting = WaitingQueue()
        self._requests: dict[str, Request] = {}
        self._running: dict[str, Request] = {}
        self._cache_readers: set[str] = set()

    @property
    def num_running(self) -> int:
        """Number of requests that hold blocks."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Number of requests in the queue, preempted ones included."""
        return len(self._waiting)

    @property
    def num_waiting_tokens(self) -> int:
        """Number of prompt tokens in the queue."""
        return self._waiting.num_prompt_tokens

    @property
    def has_work(self) -> bool:
        """Whether any request has not ended."""
        return bool(self._requests)

    @property
    def num_drafted_tokens(self) -> int:
        """Number of tokens that ran as guesses since the start."""
        return 0 if self._lookup is None else self._lookup.num_drafted_tokens

    @property
    def num_accepted_tokens(self) -> int:
        """Number of these that were right."""
        return 0 if self._lookup is None else self._lookup.num_accepted_tokens

    def requests(self) -> list[Request]:
        """Every request that has not ended, in order of arrival."""
        return list(self._requests.values())

    def add(self, request: Request, *, reads_cache: bool = True) -> None:
        """Queue a request.

        Args:
            request: With `max_tokens` resolved and a new `arrival`, larger than any before.
            reads_cache: False when activations or logits of its prompt tokens are needed.

        Raises:
            PromptTooLongError: It exceeds the context, or could never get enough blocks.
            QueueFullError: Too many requests or tokens wait already.
            SteeringCapacityError: Its plan can never get its places.
            RequestRejectedError: Its prompt is empty, or its id is in use.
        """
        if request.request_id in self._requests:
            raise RequestRejectedError(
                f"request id {request.request_id!r} belongs to an unfinished request; use another",
                param="request_id",
            )
        check_length(request, self.limits, self.kv_cache.num_tokens)
        self._waiting.check_room(request, self.limits)
        if self._slots is not None and request.spec.plan is not None:
            self._slots.check_capacity(request.spec.plan)
        self._requests[request.request_id] = request
        if reads_cache:
            self._cache_readers.add(request.request_id)
        self._waiting.add(request)

    def schedule(self, pace: Pace | None = None) -> SchedulerOutput:
        """Choose the next step's tokens, admitting and preempting as needed.

        Empty only when nothing has been queued.

        Args:
            pace: The machine's pace, which bounds the time that prompts add to the step; None
                bounds tokens alone.
        """
        limits = self.limits
        seconds = math.inf if pace is None else pace.max_chunk_seconds
        step = StepBuilder(
            limits.max_num_batched_tokens,
            limits.max_num_prompt_logits,
            pace,
            seconds * self._stretch(),
        )
        for priority in Priority:
            if step.scheduled:
                step.budget = min(step.budget, max(1, limits.max_num_batched_tokens // _BESIDE))
                step.seconds = min(step.seconds, seconds / _BESIDE)
            for request in self._decoding(priority):
                self._schedule_decode(request, step)
            self._schedule_prompts(priority, step)
        if self._lookup is not None:
            self._add_drafts(step, self._lookup)
        assert step.scheduled or not self.has_work, "requests wait and none can run"
        return SchedulerOutput(tuple(step.scheduled.values()), tuple(step.preempted))

    def update(self, scheduled: ScheduledRequest, num_kept: int | None = None) -> None:
        """Record that a scheduled part was computed and, if sampled, gave finite logits.

        Blocks enter the prefix cache only here, with the chunk whose logits were checked. A token
        on which gates were decided counts as not computed, and so do refused drafts.

        Args:
            scheduled: The part.
            num_kept: Number of its sampled tokens that the request has taken over; None for all.
        """
        request, drafts = scheduled.request, scheduled.drafts
        if request.status is not RequestStatus.RUNNING:
            return  # aborted while the step ran
        num_refused = 0 if num_kept is None else scheduled.num_sampled - num_kept
        stop = scheduled.stop - num_refused
        request.num_computed_tokens = stop - scheduled.latches
        request.num_stored_tokens = scheduled.stop
        if scheduled.is_last_chunk:
            self.kv_cache.commit(request, stop)
        if drafts and self._lookup is not None:
            self._lookup.learn(request, len(drafts), len(drafts) - num_refused)

    def finish(self, request: Request, *, discard: bool = False) -> None:
        """End a request and take back what it holds; ended already is no error.

        Args:
            request: Waiting or running.
            discard: Its logits were not finite: nothing of it may be used again.
        """
        if request.status is RequestStatus.FINISHED:
            return
        if request.status is RequestStatus.RUNNING:
            self._stop_running(request, discard=discard)
        else:
            self._waiting.remove(request)
            self.kv_cache.free(request)
        del self._requests[request.request_id]
        self._cache_readers.discard(request.request_id)
        if self._lookup is not None:
            self._lookup.forget(request)
        request.status = RequestStatus.FINISHED

    def preempt(self, request: Request) -> None:
        """Put a running request back into the queue; what it generated stays."""
        self._stop_running(request)
        request.status = RequestStatus.PREEMPTED
        self._waiting.add(request)
        self.num_preemptions += 1

    def _stop_running(self, request: Request, *, discard: bool = False) -> None:
        del self._running[request.request_id]
        self.kv_cache.free(request, discard=discard)
        if self._slots is not None and request.spec.plan is not None:
            self._slots.release(request.spec.plan)

    def _stretch(self) -> float:
        """How many times their bound chunks may take in the next step."""
        interactive = [r for r in self._running.values() if r.spec.priority is Priority.INTERACTIVE]
        if any(map(_is_decoding, interactive)):
            return 1.0
        is_awaited = interactive or self._waiting.of(Priority.INTERACTIVE)
        return _UNWATCHED if is_awaited else _JOBS_ALONE

    def _decoding(self, priority: Priority) -> Iterator[Request]:
        of_priority = (r for r in self._running.values() if r.spec.priority is priority)
        chosen = sorted(filter(_is_decoding, of_priority), key=_rank)
        # Preempted on behalf of an earlier one of this very list: no longer running.
        return (request for request in chosen if request.status is RequestStatus.RUNNING)

    def _schedule_decode(self, request: Request, step: StepBuilder) -> None:
        if step.budget == 0:
            return
        while not self.kv_cache.grow(request, request.num_tokens):
            victim = max((r for r in self._running.values() if r not in step), key=_rank)
            self._preempt_for(victim, step)
            step.is_blocked = True
            if victim is request:
                return
        step.take(request)

    def _add_drafts(self, step: StepBuilder, lookup: PromptLookup) -> None:
        """Let decodes run on into what their text suggests, where little else runs."""
        decodes = [part for part in step.scheduled.values() if part.is_decode]
        if not decodes:
            return
        room = min(step.budget, _MAX_DRAFTING_ROWS - len(decodes)) // len(decodes)
        for part in decodes:
            request = part.request
            drafts = lookup.draft(request, room)
            # Nobody gives up blocks for a guess.
            if drafts and self.kv_cache.grow(request, request.num_tokens + len(drafts)):
                step.scheduled[request.request_id] = part.with_drafts(drafts)

    def _schedule_prompts(self, priority: Priority, step: StepBuilder) -> None:
        running = (r for r in self._running.values() if r.spec.priority is priority)
        pending = [r for r in running if r not in step] + self._waiting.of(priority)
        pending.sort(key=_rank)
        first = next((r for r in pending if self._can_run(r, step)), None)
        if first is None:
            return
        others = sorted((r for r in pending if r is not first), key=_num_tokens_left)
        step.take(first, _FIRST_SHARE if others else 1.0)
        for request in others:
            if self._can_run(request, step):
                step.take(request)
        step.take(first)  # and what the others leave

    def _can_run(self, request: Request, step: StepBuilder) -> bool:
        """Whether the step has room for it and it holds blocks and places; may admit it."""
        if step.is_spent:
            return False
        if request.status is RequestStatus.RUNNING:
            return True
        if step.is_blocked or self._awaits_sibling(request):
            return False
        # Where one finds no place nobody overtakes it, or it might wait forever.
        step.is_blocked = request in step.preempted or not self._admit(request, step)
        return not step.is_blocked

    def _admit(self, request: Request, step: StepBuilder) -> bool:
        while not self._try_admit(request):
            victim = self._job_to_displace(request.spec.priority, step)
            if victim is None:
                return False
            self._preempt_for(victim, step)
        return True

    def _preempt_for(self, victim: Request, step: StepBuilder) -> None:
        self.preempt(victim)
        step.preempted.append(victim)

    def _try_admit(self, request: Request) -> bool:
        plan = request.spec.plan
        if len(self._running) >= self.limits.max_num_seqs:
            return False
        if self._slots is not None and plan is not None and not self._slots.can_admit(plan):
            return False
        reads_cache = request.request_id in self._cache_readers
        # One block for each running request, so that it is not preempted in the next steps.
        num_spare_blocks = len(self._running)
        if not self.kv_cache.admit(
            request, reads_cache=reads_cache, num_spare_blocks=num_spare_blocks
        ):
            return False
        if self._slots is not None and plan is not None:
            self._slots.acquire(plan)
        self._waiting.remove(request)
        self._running[request.request_id] = request
        if request.status is RequestStatus.WAITING:
            request.num_cached_tokens = request.num_computed_tokens
        request.status = RequestStatus.RUNNING
        return True

    def _job_to_displace(self, priority: Priority, step: StepBuilder) -> Request | None:
        running = [r for r in self._running.values() if r.spec.priority > priority]
        return max((r for r in running if r not in step), key=_rank, default=None)

    def _awaits_sibling(self, request: Request) -> bool:
        """Whether another choice of the same prompt is computing what this one can then reuse."""
        spec, block_size = request.spec, self.kv_cache.block_size
        num_shareable_tokens = (request.num_prompt_tokens - 1) // block_size * block_size
        if request.request_id not in self._cache_readers or not self.kv_cache.enable_prefix_cache:
            return False
        return any(
            other.num_computed_tokens < other.num_prompt_tokens
            and other.num_cached_tokens < num_shareable_tokens
            and other.spec.priority <= spec.priority
            and other.spec.plan is spec.plan
            and other.spec.cache_salt == spec.cache_salt
            and other.spec.prompt_token_ids == spec.prompt_token_ids
            for other in self._running.values()
        )


def _is_decoding(request: Request) -> bool:
    return _num_tokens_left(request) == 1


def _num_tokens_left(request: Request) -> int:
    return request.num_tokens - request.num_computed_tokens


def _rank(request: Request) -> tuple[Priority, int]:
    return request.spec.priority, request.arrival
