"""A model that computes nothing but remembers, per cache slot, what was written there."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING

from server.engine.errors import SteeringCapacityError
from server.engine.request import Priority, Request, RequestStatus
from server.engine.scheduler import Scheduler, Work
from tests.server.engine.make_request import ScopedPlan

if TYPE_CHECKING:
    from server.engine.scheduler import Pace, ScheduledRequest, SchedulerOutput

INTERACTIVE = Priority.INTERACTIVE


class CountedSlots:
    """Places for so many distinct plans at once."""

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self.holders: Counter[str] = Counter()

    def check_capacity(self, plan: ScopedPlan) -> None:
        if self.num_places == 0:
            raise SteeringCapacityError("there are no places")

    def can_admit(self, plan: ScopedPlan) -> bool:
        return plan.key in self.holders or len(self.holders) < self.num_places

    def acquire(self, plan: ScopedPlan) -> None:
        assert self.can_admit(plan)
        self.holders[plan.key] += 1

    def release(self, plan: ScopedPlan) -> None:
        assert self.holders[plan.key] > 0
        self.holders[plan.key] -= 1
        self.holders += Counter()  # drops zeros


class SimulatedModel:
    """Writes, for every token computed, all that its keys and values depend on; checks on reading.

    The content of a position is a hash chain over tokens, cache salt and steering up to there, so
    any block used under another prefix, salt or steering than it was computed under is noticed.
    The next token is a function of the content as well: a request's answer depends on nothing else.

    Args:
        scheduler: Chooses what is computed.
        vocab_size: Tokens that answers are made of; few of them repeat what they said.
    """

    def __init__(self, scheduler: Scheduler, vocab_size: int = 1009) -> None:
        self.scheduler = scheduler
        self.vocab_size = vocab_size
        self.slots: dict[tuple[int, int], int] = {}
        self.answers: dict[str, list[int]] = {}
        self.num_steps = 0
        self.num_tokens = self.num_drafted = self.num_refused = 0

    def step(self, pace: Pace | None = None) -> SchedulerOutput:
        """Schedule, check, run, record."""
        self.num_steps += 1
        output = self.scheduler.schedule(pace)
        self.check(output)
        if pace is not None:
            self.check_seconds(output, pace)
        self.num_tokens += output.num_tokens
        for item in output.scheduled:
            contents = self._run(item)
            num_kept = self._accept(item, contents[len(contents) - item.num_sampled :])
            self.scheduler.update(item, num_kept)
            if item.is_last_chunk:
                self._end(item.request)
        self.scheduler.kv_cache.check_integrity(self.scheduler.requests())
        return output

    def run_until_idle(self, max_steps: int = 10_000) -> None:
        """Step until every request has ended."""
        while self.scheduler.has_work:
            self.step()
            assert self.num_steps < max_steps, "requests do not end"

    def check(self, output: SchedulerOutput) -> None:
        limits = self.scheduler.limits
        assert 0 < output.num_tokens <= limits.max_num_batched_tokens
        assert self.scheduler.num_running <= limits.max_num_seqs
        assert output.work == sum((item.work for item in output.scheduled), Work())
        requests = [item.request for item in output.scheduled]
        assert len({request.request_id for request in requests}) == len(requests)
        assert all(request.status is RequestStatus.RUNNING for request in requests)
        assert not {r.request_id for r in output.preempted} & {r.request_id for r in requests}
        for item in output.scheduled:
            assert item.start == item.request.num_computed_tokens
            num_known = item.stop - len(item.drafts)
            assert num_known <= item.request.num_tokens
            assert item.is_last_chunk == (num_known == item.request.num_tokens)
            assert not item.drafts or item.is_decode

    def check_seconds(self, output: SchedulerOutput, pace: Pace) -> None:
        """Chunks keep to the time, but for the least ones that the two halves have anyway."""
        chunks = [i for i in output.scheduled if i.num_tokens > 1 and not i.is_decode]
        seconds = [pace.seconds(item.work) for item in chunks]
        least = sorted(
            (s for item, s in zip(chunks, seconds, strict=True) if item.num_tokens <= 16),
            reverse=True,
        )
        interactive = [i for i in output.scheduled if i.request.spec.priority is INTERACTIVE]
        has_stream = any(i.num_tokens == 1 and i.is_last_chunk for i in interactive)
        most = pace.max_chunk_seconds * (1 if has_stream else 4 if interactive else 2)
        assert sum(seconds) <= most + sum(least[:4]) + 1e-9

    def _run(self, item: ScheduledRequest) -> list[int]:
        """Content of each position up to the last one that runs."""
        request, size = item.request, self.scheduler.kv_cache.block_size
        content, contents = 0, []
        tokens = [*request.token_ids(0, item.start), *item.token_ids]
        for position, token in enumerate(tokens):
            content = hash((content, token, request.spec.cache_salt, _steering(request, position)))
            slot = (request.block_table[position // size], position % size)
            if position < item.start:
                assert self.slots[slot] == content, f"position {position} reads foreign content"
            else:
                self.slots[slot] = content
            contents.append(content)
        return contents

    def _accept(self, item: ScheduledRequest, contents: list[int]) -> int:
        num_kept = 0
        for content, drafted in zip_longest(contents, item.drafts):
            item.request.output_token_ids.append(content % self.vocab_size)
            num_kept += 1
            if content % self.vocab_size != drafted:
                break
        self.num_drafted += len(item.drafts)
        self.num_refused += item.num_sampled - num_kept
        return num_kept

    def _end(self, request: Request) -> None:
        if len(request.output_token_ids) >= request.max_tokens:
            self.answers[request.request_id] = list(request.output_token_ids)
            self.scheduler.finish(request)


def _steering(request: Request, position: int) -> str:
    plan = request.spec.plan
    if plan is None:
        return ""
    assert isinstance(plan, ScopedPlan)
    return plan.key if plan.scope.mask(position, position + 1, request.positions).any() else ""
