from __future__ import annotations

import subprocess
import sys

import pytest

from server.engine.errors import (
    InvalidSamplingError,
    PromptTooLongError,
    QueueFullError,
    RequestRejectedError,
    SteeringCapacityError,
)
from server.engine.kv_cache import KVCacheManager
from server.engine.request import Priority, Request, RequestStatus
from server.engine.sampling import SamplingParams
from server.engine.scheduler import Scheduler, SchedulerLimits
from tests.server.engine.make_request import ScopedPlan, make_request

from .simulated_model import CountedSlots, SimulatedModel


def make_scheduler(
    *, num_blocks: int = 64, slots: CountedSlots | None = None, **limits: int
) -> Scheduler:
    bounds = SchedulerLimits(**{"max_model_len": 256, "max_num_batched_tokens": 32} | limits)
    return Scheduler(bounds, KVCacheManager(num_blocks, 4), slots)  # type: ignore[arg-type]


def add(scheduler: Scheduler, *requests: Request) -> None:
    for request in requests:
        scheduler.add(request)


def num_cached_tokens(scheduler: Scheduler, request: Request) -> int:
    """How many tokens of a request's prompt a longer one would find in the cache."""
    longer = make_request([*request.spec.prompt_token_ids, 0])
    assert scheduler.kv_cache.admit(longer)
    found = longer.num_computed_tokens
    scheduler.kv_cache.free(longer)
    return found


def test_a_long_prompt_is_computed_in_chunks_and_sampled_once() -> None:
    scheduler = make_scheduler()
    request = make_request(70, max_tokens=2)
    scheduler.add(request)
    model = SimulatedModel(scheduler)
    steps = [model.step().scheduled for _ in range(4)]
    chunks = [(item.start, item.stop, item.is_last_chunk) for (item,) in steps]
    assert chunks == [(0, 32, False), (32, 64, False), (64, 70, True), (70, 71, True)]
    assert not scheduler.has_work


def test_decodes_go_before_prompts_within_the_budget() -> None:
    scheduler = make_scheduler()
    decoding = [make_request(4) for _ in range(3)]
    add(scheduler, *decoding)
    model = SimulatedModel(scheduler)
    model.step()
    prompt = make_request(100)
    scheduler.add(prompt)
    scheduled = model.step().scheduled
    assert [item.request for item in scheduled] == [*decoding, prompt]
    assert [item.num_tokens for item in scheduled] == [1, 1, 1, 29]


def test_interactive_requests_go_before_jobs_that_came_first() -> None:
    scheduler = make_scheduler()
    job = make_request(64, priority=Priority.JOB)
    scheduler.add(job)
    model = SimulatedModel(scheduler)
    model.step()
    chat = make_request(20)
    scheduler.add(chat)
    scheduled = model.step().scheduled
    assert [(item.request, item.num_tokens) for item in scheduled] == [(chat, 20), (job, 4)]


def test_a_job_has_the_whole_step_when_no_one_waits_for_it() -> None:
    scheduler = make_scheduler()
    job = make_request(64, priority=Priority.JOB)
    scheduler.add(job)
    model = SimulatedModel(scheduler)
    [alone] = model.step().scheduled
    scheduler.add(make_request(2, max_tokens=2))
    beside = [model.step().scheduled[-1] for _ in range(2)]
    [after] = model.step().scheduled
    assert [item.num_tokens for item in (alone, *beside, after)] == [32, 4, 4, 24]
    assert {item.request for item in (alone, *beside, after)} == {job}


def test_a_job_gives_its_seat_to_an_interactive_request() -> None:
    scheduler = make_scheduler(max_num_seqs=2)
    jobs = [make_request(8, priority=Priority.JOB) for _ in range(2)]
    add(scheduler, *jobs)
    model = SimulatedModel(scheduler)
    model.step()
    chat = make_request(8)
    scheduler.add(chat)
    output = model.step()
    assert [item.request for item in output.scheduled] == [chat, jobs[0]]
    assert output.preempted == (jobs[1],)
    assert len(jobs[1].output_token_ids) == 1, "generated tokens stay"
    model.run_until_idle()
    assert len(model.answers) == 3


def test_an_interactive_request_never_displaces_another() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    first, second = make_request(), make_request()
    add(scheduler, first, second)
    model = SimulatedModel(scheduler)
    for _ in range(8):
        assert [item.request for item in model.step().scheduled] == [first]
    assert [item.request for item in model.step().scheduled] == [second]
    assert scheduler.num_preemptions == 0


def test_the_latest_request_is_preempted_and_resumes_with_the_same_answer() -> None:
    def answers(num_blocks: int) -> tuple[list[list[int]], int]:
        scheduler = make_scheduler(num_blocks=num_blocks)
        requests = [make_request(range(i * 100, i * 100 + 8), max_tokens=24) for i in range(3)]
        add(scheduler, *requests)
        model = SimulatedModel(scheduler)
        model.run_until_idle()
        return [model.answers[r.request_id] for r in requests], scheduler.num_preemptions

    plenty, none = answers(64)
    scarce, several = answers(11)
    assert none == 0
    assert several > 0
    assert scarce == plenty


def test_preemption_takes_the_latest() -> None:
    scheduler = make_scheduler(num_blocks=8)
    first, second = make_request(11, max_tokens=8), make_request(11, max_tokens=8)
    add(scheduler, first, second)
    model = SimulatedModel(scheduler)
    preempted = [request for _ in range(8) for request in model.step().preempted]
    assert preempted == [second]
    assert first.status is RequestStatus.FINISHED
    model.run_until_idle()


def test_requests_wait_for_live_edits_without_being_overtaken() -> None:
    slots = CountedSlots(1)
    scheduler = make_scheduler(slots=slots)
    holder = make_request(plan=ScopedPlan("a"), max_tokens=3)
    blocked, shares = make_request(plan=ScopedPlan("b")), make_request(plan=ScopedPlan("a"))
    add(scheduler, holder, blocked, shares, make_request())
    model = SimulatedModel(scheduler)
    for _ in range(3):
        assert [item.request for item in model.step().scheduled] == [holder]
    assert [item.request for item in model.step().scheduled] == [blocked]
    model.run_until_idle()
    assert not slots.holders


def test_a_plan_that_never_fits_is_refused_at_once() -> None:
    scheduler = make_scheduler(slots=CountedSlots(0))
    with pytest.raises(SteeringCapacityError):
        scheduler.add(make_request(plan=ScopedPlan("a")))
    assert not scheduler.has_work


def test_choices_of_one_prompt_wait_for_its_blocks() -> None:
    scheduler = make_scheduler()
    prompt = range(21)
    choices = [make_request(prompt, choice_index=index) for index in range(3)]
    other = make_request(4)
    add(scheduler, *choices, other)
    model = SimulatedModel(scheduler)
    assert [item.request for item in model.step().scheduled] == [choices[0], other]
    scheduled = model.step().scheduled
    assert [item.num_tokens for item in scheduled] == [1, 1, 1, 1]
    assert [choice.num_cached_tokens for choice in choices] == [0, 20, 20]


def test_a_request_that_must_see_its_prompt_does_not_wait_or_read() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=64)
    first, second = make_request(range(21)), make_request(range(21))
    scheduler.add(first)
    scheduler.add(second, reads_cache=False)
    output = SimulatedModel(scheduler).step()
    assert [item.num_tokens for item in output.scheduled] == [21, 21]


@pytest.mark.parametrize("is_waiting", [True, False])
def test_finish_ends_a_request_wherever_it_is(is_waiting: bool) -> None:
    slots = CountedSlots(1)
    scheduler = make_scheduler(slots=slots)
    request = make_request(40, plan=ScopedPlan("a"))
    scheduler.add(request)
    if not is_waiting:
        SimulatedModel(scheduler).step()
    scheduler.finish(request)
    assert request.status is RequestStatus.FINISHED
    scheduler.finish(request)  # has ended already
    assert (scheduler.num_running, scheduler.num_waiting, scheduler.num_waiting_tokens) == (0, 0, 0)
    assert not slots.holders
    scheduler.kv_cache.check_integrity([])


def test_a_request_finished_during_the_step_is_not_recorded() -> None:
    scheduler = make_scheduler()
    request = make_request()
    scheduler.add(request)
    (item,) = scheduler.schedule().scheduled
    scheduler.finish(request)
    scheduler.update(item)
    assert num_cached_tokens(scheduler, request) == 0


def test_a_failed_request_leaves_nothing_in_the_cache() -> None:
    scheduler = make_scheduler()
    failed = make_request(range(8))
    scheduler.add(failed)
    model = SimulatedModel(scheduler)
    model.step()
    assert num_cached_tokens(scheduler, failed) == 8
    scheduler.schedule()
    scheduler.finish(failed, discard=True)
    assert num_cached_tokens(scheduler, failed) == 0


def test_unfinished_prompts_are_not_cached() -> None:
    scheduler = make_scheduler()
    request = make_request(40)
    scheduler.add(request)
    SimulatedModel(scheduler).step()
    assert num_cached_tokens(scheduler, request) == 0, "no logits have vouched for them"


@pytest.mark.parametrize(
    ("num_prompt_tokens", "max_tokens", "num_blocks", "param"),
    [(256, 1, 99, "prompt"), (200, 57, 99, "max_tokens"), (8, 10, 4, "max_tokens")],
)
def test_what_never_fits_is_refused(
    num_prompt_tokens: int, max_tokens: int, num_blocks: int, param: str
) -> None:
    scheduler = make_scheduler(num_blocks=num_blocks)
    with pytest.raises(PromptTooLongError) as caught:
        scheduler.add(make_request(num_prompt_tokens, max_tokens=max_tokens))
    assert caught.value.param == param


@pytest.mark.parametrize("min_tokens", [0, 1, 2, 3])
@pytest.mark.parametrize("max_tokens", [None, 0, 1, 2])
@pytest.mark.parametrize("room", [-1, 0, 1, 2])
def test_what_is_wanted_fits_or_is_refused(
    room: int, max_tokens: int | None, min_tokens: int
) -> None:
    """An answer as long as fits is one token at least, and as many as `min_tokens`."""
    if max_tokens is not None and min_tokens > max_tokens:
        with pytest.raises(InvalidSamplingError, match="min_tokens is"):
            SamplingParams(max_tokens=max_tokens, min_tokens=min_tokens)
        return
    sampling = SamplingParams(max_tokens=max_tokens, min_tokens=min_tokens)
    scheduler = make_scheduler(max_model_len=32)
    resolved = max(room, 0) if max_tokens is None else max_tokens
    request = make_request(32 - room, max_tokens=resolved, sampling=sampling)
    if (1 if max_tokens is None else max_tokens) > room:
        with pytest.raises(PromptTooLongError):
            scheduler.add(request)
    elif min_tokens > room:
        with pytest.raises(InvalidSamplingError) as caught:
            scheduler.add(request)
        assert caught.value.param == "min_tokens"
    else:
        scheduler.add(request)
        model = SimulatedModel(scheduler)
        model.run_until_idle()
        assert len(model.answers[request.request_id]) == resolved


def test_what_just_fits_runs() -> None:
    scheduler = make_scheduler(num_blocks=4, max_model_len=17)
    request = make_request(8, max_tokens=9)
    scheduler.add(request)
    model = SimulatedModel(scheduler)
    model.run_until_idle()
    assert len(model.answers[request.request_id]) == 9


def test_a_prompt_that_is_only_scored_needs_no_room_for_an_answer() -> None:
    scheduler = make_scheduler(num_blocks=4, max_model_len=16)
    scheduler.add(make_request(16, max_tokens=0))
    model = SimulatedModel(scheduler)
    model.run_until_idle()
    assert model.num_steps == 1


def test_the_queue_is_bounded_by_requests_and_by_tokens() -> None:
    scheduler = make_scheduler(max_queued_requests=2, max_queued_tokens=20)
    scheduler.add(make_request(40))
    with pytest.raises(QueueFullError, match="40 prompt tokens wait"):
        scheduler.add(make_request(4))
    scheduler.schedule()
    add(scheduler, make_request(4), make_request(4))
    with pytest.raises(QueueFullError, match="2 requests wait"):
        scheduler.add(make_request(4))
    assert scheduler.num_waiting == 2


def test_empty_prompts_and_used_ids_are_refused() -> None:
    scheduler = make_scheduler()
    with pytest.raises(RequestRejectedError, match="no tokens"):
        scheduler.add(make_request(0))
    scheduler.add(make_request(request_id="same"))
    with pytest.raises(RequestRejectedError, match="unfinished"):
        scheduler.add(make_request(request_id="same"))


def test_scheduling_loads_no_torch() -> None:
    code = "import sys, server.engine.scheduler; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
