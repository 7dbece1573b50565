"""Random arrivals, chunks, preemptions and cancellations, checked after every step."""

from __future__ import annotations

import itertools
import random

import pytest

from server.engine.errors import QueueFullError
from server.engine.kv_cache import KVCacheManager
from server.engine.request import Priority, Request, RequestStatus
from server.engine.scheduler import Pace, PromptLookup, Scheduler, SchedulerLimits, SchedulerOutput
from steering.documents import PositionContext, Scope
from tests.server.engine.make_request import ScopedPlan, make_request

from .simulated_model import CountedSlots, SimulatedModel

FEW = 3  # tokens that answers are made of where they shall repeat themselves
SCOPES = (
    {},
    {"tokens": "last_prompt"},
    {"tokens": "generated"},
    {"windows": [[3, 9]]},
    {"prompt_indices": [-2]},
)


def rank(request: Request) -> tuple[Priority, int]:
    return request.spec.priority, request.arrival


def num_left(request: Request) -> int:
    return request.num_tokens - request.num_computed_tokens


class Trace:
    """One random run; everything is drawn from the seed."""

    def __init__(self, seed: int, lookup: PromptLookup | None = None) -> None:
        self.rng = rng = random.Random(seed)
        limits = SchedulerLimits(
            max_model_len=96,
            max_num_seqs=rng.choice([1, 3, 8]),
            max_num_batched_tokens=rng.choice([5, 16, 64]),
            max_queued_requests=12,
        )
        kv_cache = KVCacheManager(rng.choice([24, 32, 64]), rng.choice([4, 8]))
        self.slots = CountedSlots(rng.choice([1, 2, 5]))
        self.scheduler = Scheduler(limits, kv_cache, self.slots, lookup)  # type: ignore[arg-type]
        self.model = SimulatedModel(self.scheduler, 1009 if lookup is None else FEW)
        self.plans = [ScopedPlan(f"plan-{i % 3}", Scope.from_dict(s)) for i, s in enumerate(SCOPES)]
        self.is_timed = rng.random() < 0.7
        self.admitted: list[Request] = []
        self.cancelled: set[str] = set()

    def run(self, num_steps: int = 60) -> None:
        for _ in range(num_steps):
            for _ in range(self.rng.choice([0, 0, 1, 3])):
                self.arrive()
            if self.scheduler.has_work:
                pending = {r: num_left(r) for r in self.scheduler.requests() if num_left(r) > 1}
                waiting = [r for r in pending if r.status is not RequestStatus.RUNNING]
                self.check_order(pending, waiting, self.model.step(self.pace()))
            if self.rng.random() < 0.2:
                self.cancel()
        self.model.run_until_idle()
        ended = set(self.model.answers) | self.cancelled
        assert ended == {request.request_id for request in self.admitted}
        assert self.scheduler.kv_cache.usage_ratio == 0.0
        assert not self.slots.holders

    def arrive(self) -> None:
        rng = self.rng
        shared = rng.choice([0, 0, 12, 20])  # tokens of a common beginning
        own = [rng.randrange(1000) for _ in range(rng.randrange(1, 30))]
        request = make_request(
            [*range(shared), *own],
            max_tokens=rng.randrange(0, 24),
            priority=rng.choice([Priority.INTERACTIVE, Priority.INTERACTIVE, Priority.JOB]),
            plan=rng.choice([None, None, *self.plans]),
            cache_salt=rng.choice([b"", b"salt"]),
        )
        try:
            self.scheduler.add(request, reads_cache=rng.random() < 0.8)
        except QueueFullError:
            return
        self.admitted.append(request)

    def cancel(self) -> None:
        alive = self.scheduler.requests()
        if alive:
            request = self.rng.choice(alive)
            self.scheduler.finish(request)
            self.cancelled.add(request.request_id)

    def pace(self) -> Pace | None:
        """Of this step: none known, or anything from far too slow to far too fast."""
        if not self.is_timed:
            return None
        token, pair, logit = (10.0 ** self.rng.uniform(-6, 0) for _ in range(3))
        return Pace(token, pair / 10, logit, max_chunk_seconds=0.5)

    def check_order(
        self, pending: dict[Request, int], waiting: list[Request], output: SchedulerOutput
    ) -> None:
        """Whoever is overtaken is longer, and nobody starts past the first in line.

        Args:
            pending: Before the step, requests with a prompt to compute, and their tokens left.
            waiting: Those of them that held no blocks.
            output: The step.
        """
        ran = [item.request for item in output.scheduled if item.request in pending]
        left = [r for r in pending if r not in ran and r not in output.preempted]
        started = [r for r in ran if r in waiting]
        for request, other in itertools.product(ran, left):
            if request in started or other not in waiting:  # else it may lack blocks or places
                assert rank(other) > rank(request) or pending[other] >= pending[request]
                assert request.spec.priority <= other.spec.priority
        for priority in {r.spec.priority for r in started}:
            first = min((r for r in pending if r.spec.priority is priority), key=rank)
            assert first in ran


@pytest.mark.parametrize("seed", range(60))
def test_every_request_ends_and_every_block_comes_back(seed: int) -> None:
    Trace(seed).run()


@pytest.mark.parametrize("seed", range(12))
def test_answers_do_not_depend_on_the_schedule(seed: int) -> None:
    trace = Trace(seed)
    trace.run()
    check_answers(trace)


def test_answers_do_not_depend_on_drafts() -> None:
    num_drafted = num_refused = 0
    for seed in range(20):
        trace = Trace(seed, PromptLookup(6))
        trace.run()
        check_answers(trace, FEW)
        lookup = trace.scheduler
        model = trace.model
        num_drafted += model.num_drafted
        num_refused += model.num_refused
        assert lookup.num_drafted_tokens >= lookup.num_accepted_tokens
    assert num_drafted > num_refused > 0


def check_answers(trace: Trace, vocab_size: int = 1009) -> None:
    for request in trace.admitted:
        if request.request_id in trace.cancelled:
            continue
        alone = Scheduler(SchedulerLimits(max_model_len=96), KVCacheManager(32, 16))
        spec = request.spec
        again = Request(spec, arrival=0, seed=0, max_tokens=request.max_tokens)
        alone.add(again)
        model = SimulatedModel(alone, vocab_size)
        model.run_until_idle()
        assert model.answers[spec.request_id] == trace.model.answers[spec.request_id]


class UndigestedPlan(ScopedPlan):
    """Steering the prefix cache is not told about."""

    def block_digest(self, start: int, stop: int, context: PositionContext) -> bytes:
        return b""


def run_after_each_other(plans: list[ScopedPlan | None]) -> None:
    scheduler = Scheduler(SchedulerLimits(max_model_len=96), KVCacheManager(32, 4))
    model = SimulatedModel(scheduler)
    for plan in plans:
        scheduler.add(make_request(range(12), plan=plan))
        model.run_until_idle()


def test_isolation_rests_on_the_digest() -> None:
    run_after_each_other([None, ScopedPlan("a"), ScopedPlan("b"), ScopedPlan("a"), None])
    with pytest.raises(AssertionError, match="foreign content"):
        run_after_each_other([None, UndigestedPlan("a")])
