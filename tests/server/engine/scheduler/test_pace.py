"""Steps sized by measured speed, on machines that are simulated: no clock anywhere."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import pytest

from server.engine.kv_cache import KVCacheManager
from server.engine.request import Priority, Request
from server.engine.sampling import SamplingParams
from server.engine.scheduler import Pace, Scheduler, SchedulerLimits, SpeedMeter, Work
from tests.server.engine.make_request import make_request

from .simulated_model import SimulatedModel

LIMIT = 0.5
MACHINES = [  # seconds a token, a pair, a row of logits, a step; the model's width
    (1e-3, 5e-7, 3e-4, 0.03, 576),  # a small model on one core
    (4e-3, 4e-6, 1e-3, 0.1, 576),  # the same in float32, on a core that others use
    (3e-2, 1e-6, 4e-3, 0.7, 4096),  # 7 B on a few cores
    (0.3, 1e-5, 0.04, 6.0, 8192),  # 70 B there
    (2e-5, 2e-9, 1e-5, 0.01, 4096),  # an accelerator
]


@dataclass
class Machine:
    """Takes so long for each kind of work, and for a step as such."""

    token: float
    pair: float
    logit: float
    step: float
    width: int = 576

    def seconds(self, work: Work) -> float:
        """Of a step."""
        return self.step + self.chunk_seconds(work)

    def chunk_seconds(self, work: Work) -> float:
        """Of what its chunks add."""
        return work.tokens * self.token + work.pairs * self.pair + work.logits * self.logit


class Served:
    """A scheduler on such a machine, with a meter between them."""

    def __init__(self, machine: Machine, **limits: int) -> None:
        bounds = {"max_model_len": 16_384, "max_num_batched_tokens": 2048, **limits}
        self.scheduler = Scheduler(SchedulerLimits(**bounds), KVCacheManager(4096, 16))
        self.meter = SpeedMeter(machine.width, LIMIT)
        self.machine = machine
        self.now = 0.0
        self.first_token_at: dict[str, float] = {}
        self.ended: set[str] = set()

    def step(self) -> tuple[Work, float]:
        """One step; the work of its chunks, and the seconds they added."""
        output = self.scheduler.schedule(self.meter.pace)
        seconds = self.machine.seconds(output.work)
        self.meter.observe(output.work, seconds)
        self.now += seconds
        chunks = sum((i.work for i in output.scheduled if i.num_tokens > 1), Work())
        for item in output.scheduled:
            request = item.request
            self.scheduler.update(item)
            if item.is_last_chunk:
                request.output_token_ids.append(1)
                self.first_token_at.setdefault(request.request_id, self.now)
                if len(request.output_token_ids) >= request.max_tokens:
                    self.scheduler.finish(request)
                    self.ended.add(request.request_id)
        return chunks, self.machine.chunk_seconds(chunks)


def stream(served: Served, max_tokens: int = 10_000) -> Request:
    """A chat that decodes from now on."""
    chat = make_request(16, max_tokens=max_tokens)
    served.scheduler.add(chat)
    while chat.request_id not in served.first_token_at:
        served.step()
    return chat


@pytest.mark.parametrize("costs", MACHINES)
def test_a_chunk_keeps_to_its_time_beside_a_stream(costs: tuple[float, ...]) -> None:
    """On any machine and in any context, from the first step on, and it does not dawdle."""
    served = Served(Machine(*costs))
    stream(served)
    served.scheduler.add(make_request(8000, max_tokens=1))
    least = served.machine.chunk_seconds(Work.of_chunk(8000, 16))
    added, sizes = [], []
    while len(served.scheduler.requests()) > 1:
        chunk, seconds = served.step()
        added.append(seconds)
        sizes.append(chunk.tokens)
    assert max(after / before for before, after in itertools.pairwise(sizes)) < 2.5
    assert max(added) <= max(1.5 * LIMIT, least)
    settled = sorted(added[len(added) // 4 : -1])
    if settled:
        whole = served.machine.chunk_seconds(Work.of_chunk(0, 2048))
        assert settled[len(settled) // 2] > min(0.6 * LIMIT, 0.6 * whole, 0.6 * least)


@pytest.mark.parametrize(
    ("num_prompts", "priority", "times"),
    [(1, Priority.INTERACTIVE, 4), (6, Priority.INTERACTIVE, 4), (6, Priority.JOB, 2)],
)
def test_steps_are_longer_while_nothing_streams(
    num_prompts: int, priority: Priority, times: int
) -> None:
    """Until the first prompt is answered, and again when all streams have ended."""
    served = Served(Machine(4e-3, 4e-7, 1e-3, 0.1))
    for _ in range(num_prompts):
        served.scheduler.add(make_request(4000, max_tokens=3, priority=priority))
    added: dict[bool, list[float]] = {True: [], False: []}
    while served.scheduler.has_work:
        has_stream = any(r.output_token_ids for r in served.scheduler.requests())
        added[has_stream].append(served.step()[1])
    assert 0.8 * times * LIMIT < max(added[False]) < 1.2 * times * LIMIT
    if priority is Priority.INTERACTIVE:
        assert max(added[True]) < 1.3 * LIMIT


@pytest.mark.parametrize("num_logprobs", [None, 1])
def test_rows_of_logits_count(num_logprobs: int | None) -> None:
    served = Served(Machine(1e-3, 1e-7, 2e-3, 0.03))
    stream(served)
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=num_logprobs)
    served.scheduler.add(make_request(6000, max_tokens=1, sampling=sampling))
    while len(served.scheduler.requests()) > 1:
        assert served.step()[1] <= 1.5 * LIMIT


@pytest.mark.parametrize("costs", MACHINES[:3])
def test_a_short_prompt_gets_its_share_of_a_long_ones_steps(costs: tuple[float, ...]) -> None:
    served = Served(Machine(*costs))
    stream(served)
    long = make_request(8000, max_tokens=1)
    served.scheduler.add(long)
    for _ in range(12):
        served.step()
    begun, steps = served.now, 0
    assert long.request_id not in served.first_token_at
    chat = make_request(40, max_tokens=1)
    served.scheduler.add(chat)
    while chat.request_id not in served.first_token_at:
        served.step()
        steps += 1
    alone = served.machine.chunk_seconds(Work.of_chunk(0, 40))
    assert served.now - begun <= 4 * (alone + steps * served.machine.step) + LIMIT
    assert long.num_computed_tokens < 8000


def test_a_long_prompt_ends_however_many_short_ones_come() -> None:
    """It is first in line, or comes to be: half of every step is its own."""
    served = Served(Machine(*MACHINES[0]))
    stream(served)
    rivals = [make_request(4000, max_tokens=1) for _ in range(3)]
    for rival in rivals:
        served.scheduler.add(rival)
    most = 3 * sum(served.machine.chunk_seconds(Work.of_chunk(0, 4000)) for _ in rivals)
    while not {r.request_id for r in rivals} <= served.ended:
        while served.scheduler.num_waiting < 20:  # more than can be served
            served.scheduler.add(make_request(200, max_tokens=1))
        served.step()
        assert served.now < most


def test_a_machine_nobody_knows_is_asked_for_little() -> None:
    """The first step is small, and the second has learned from it."""
    served = Served(Machine(*MACHINES[3]))
    served.scheduler.add(make_request(8000))
    assert served.step()[0].tokens == 48
    assert served.step()[0].tokens == 16


@pytest.mark.parametrize("costs", MACHINES)
def test_the_meter_finds_the_machine(costs: tuple[float, ...]) -> None:
    """What it expects of mixed steps comes within a tenth, and back after the pace changes."""
    rng, machine = random.Random(0), Machine(*costs)
    meter = SpeedMeter(machine.width, LIMIT)

    def learn(steps: int) -> float:
        errors = []
        for _ in range(steps):
            contexts = [rng.randrange(500) for _ in range(rng.randrange(1, 8))]
            decodes = sum((Work.of_chunk(context, 1) for context in contexts), Work())
            start = rng.randrange(8000)
            meter.observe(decodes, machine.seconds(decodes))
            assert meter.pace is not None
            most = min(max(meter.pace.most_tokens(start, LIMIT), 16), 2048)
            chunk = Work.of_chunk(start, rng.randrange(most // 2, most + 1))
            expected = meter.pace.seconds(chunk)
            errors.append(abs(expected / machine.chunk_seconds(chunk) - 1))
            meter.observe(chunk + decodes, machine.seconds(chunk + decodes))
        return sum(errors[-20:]) / 20

    assert learn(200) < 0.1
    machine.token *= 5
    machine.pair *= 5
    assert learn(200) < 0.1


def test_one_stall_is_not_a_pace() -> None:
    meter = SpeedMeter(576, LIMIT)
    chunk = Work.of_chunk(0, 100)
    for _ in range(10):
        meter.observe(chunk, 0.1)
    meter.observe(chunk, 60.0)
    assert meter.pace is not None
    assert meter.pace.seconds(chunk) < 0.25


@pytest.mark.parametrize("costs", MACHINES)
def test_a_stall_while_only_decoding_lets_no_chunk_take_longer(costs: tuple[float, ...]) -> None:
    """A process that was stopped for a minute does not think later that its chunks cost nothing."""
    machine = Machine(*costs)
    meter = SpeedMeter(machine.width, LIMIT)

    def chunk_seconds() -> float:
        assert meter.pace is not None
        chunk = Work.of_chunk(50, min(max(meter.pace.most_tokens(50, LIMIT), 16), 2048))
        mixed = chunk + decode
        meter.observe(mixed, machine.seconds(mixed))
        return machine.chunk_seconds(chunk)

    decode = Work.of_chunk(50, 1)
    for _ in range(40):
        chunk_seconds()
        meter.observe(decode, machine.seconds(decode))
    before = chunk_seconds()
    meter.observe(decode, 60.0)
    assert max(chunk_seconds() for _ in range(20)) <= max(2.2 * LIMIT, before)


def test_without_a_limit_there_is_no_pace() -> None:
    meter = SpeedMeter(576, 0.0)
    meter.observe(Work.of_chunk(0, 100), 0.1)
    assert meter.pace is None


@pytest.mark.parametrize("seed", range(20))
def test_most_tokens_is_the_most(seed: int) -> None:
    rng = random.Random(seed)
    pace = Pace(*(10.0 ** rng.uniform(-9, 0) for _ in range(3)), max_chunk_seconds=LIMIT)
    start, seconds = rng.randrange(100_000), rng.uniform(0, 10)
    most = pace.most_tokens(start, seconds, has_logits=True)
    assert pace.seconds(Work.of_chunk(start, most, most)) <= seconds * (1 + 1e-9)
    assert pace.seconds(Work.of_chunk(start, most + 1, most + 1)) > seconds * (1 - 1e-9)


def test_answers_do_not_depend_on_the_pace() -> None:
    """The same blocks, contents and answers however prompts are cut."""

    def answers(pace: Pace | None) -> list[list[int]]:
        scheduler = Scheduler(SchedulerLimits(max_model_len=4096), KVCacheManager(512, 16))
        requests = [make_request(range(n), max_tokens=4) for n in (900, 40, 333)]
        for request in requests:
            scheduler.add(request)
        model = SimulatedModel(scheduler)
        while scheduler.has_work:
            model.step(pace)
        return [model.answers[request.request_id] for request in requests]

    paces = [Pace(c, c / 1000, c, LIMIT) for c in (1e-5, 1e-3, 1e-2, 1.0)]
    assert all(answers(pace) == answers(None) for pace in paces)
