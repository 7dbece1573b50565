"""Measurements in batches: the same numbers as at once, behind the chats, gone when cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from server.engine.assembly import assemble
from server.engine.async_engine import AsyncEngine
from server.engine.errors import PromptTooLongError
from server.engine.loading import LoadedModel
from server.engine.request import CaptureRequest, GenerationRequest, Pooling
from server.engine.sampling import SamplingParams
from server.measure.instrument import Instrument
from server.measure.next_token import kl_divergences
from server.pools import Pool
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import Site, SitePoint
from tests.models import tiny_model
from tests.server.engine.harness import _remove_hooks, bare_logits, load_tiny

TOLERANCE = 2e-4
POINT = SitePoint(1, Site.RESID_POST)
PROMPTS = [tuple(range(n, n + 3 + n % 4)) for n in range(1, 12)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny("llama", tmp_path_factory.mktemp("llama"), max_model_len=64)


@pytest.fixture
async def engine(loaded: LoadedModel) -> AsyncIterator[AsyncEngine]:
    _remove_hooks(loaded.model)
    config = replace(loaded.config, max_queued_requests=6, max_num_seqs=3)
    engine = AsyncEngine(
        assemble(replace(loaded, config=config)), loaded.tokenizer, loaded.info, config
    )
    yield engine
    engine.close()


@pytest.fixture
def plan(loaded: LoadedModel) -> SteeringPlan:
    vector = {"vector": torch.linspace(-1.0, 1.0, 32)}
    direction = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (1,), vector)
    document = {"operation": "add", "direction": "v", "strength": 3.0}
    return compile_plan([Steer(Intervention.from_dict(document), direction)], [], loaded.spec)


async def until_idle(engine: AsyncEngine) -> None:
    while engine.stats().num_requests_running or engine.stats().num_requests_waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_distributions_are_compared_beside_the_event_loop(
    engine: AsyncEngine, plan: SteeringPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a large vocabulary that takes seconds, in which no chat could be answered."""
    threads = []
    for name in ("kl_divergences", "token_log_odds"):

        def here(first: Any, second: Any) -> list[float]:
            threads.append(threading.current_thread())
            return [0.0]

        monkeypatch.setattr(f"server.measure.instrument.{name}", here)
    pool = Pool("test", 1, max_waiting=0)
    instrument = Instrument(engine, compute=pool.run)
    await instrument.kl(PROMPTS[:1], plan)
    await instrument.log_odds(PROMPTS[:1], [1])
    pool.close()
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def test_batches_change_nothing(engine: AsyncEngine, plan: SteeringPlan) -> None:
    """Nor does a queue that is too short for all prompts at once."""
    whole = [
        (await engine.capture(CaptureRequest(f"c{i}", (prompt,), (POINT,), plan=plan))).pooled
        for i, prompt in enumerate(PROMPTS)
    ]
    for size in (1, 4, 5):
        found = await Instrument(engine, batch_size=size).capture(PROMPTS, [POINT], plan=plan)
        want = torch.cat([one[POINT] for one in whole])
        torch.testing.assert_close(found.pooled[POINT], want, rtol=TOLERANCE, atol=TOLERANCE)


async def test_windows_and_boundaries_follow_their_prompts(engine: AsyncEngine) -> None:
    windows = [(len(prompt) - 2, len(prompt)) for prompt in PROMPTS]
    instrument = Instrument(engine, batch_size=3)
    asked = {"windows": windows, "steering_prompt_tokens": [1] * len(PROMPTS)}
    found = await instrument.capture(PROMPTS, [POINT], pooling=Pooling.ALL, **asked)  # type: ignore[arg-type]
    everything = await instrument.capture(PROMPTS, [POINT], pooling=Pooling.ALL)
    pairs = zip(found.sequences[POINT], everything.sequences[POINT], strict=True)
    for part, rows in pairs:
        torch.testing.assert_close(part, rows[-2:], rtol=TOLERANCE, atol=TOLERANCE)
    indices = [-1 - (len(prompt) > 3) for prompt in PROMPTS]
    chosen = await instrument.capture(PROMPTS, [POINT], indices=indices)
    for row, rows, index in zip(
        chosen.pooled[POINT], everything.sequences[POINT], indices, strict=True
    ):
        torch.testing.assert_close(row, rows[index], rtol=TOLERANCE, atol=TOLERANCE)


async def test_perplexity_is_that_of_plain_transformers(engine: AsyncEngine) -> None:
    model = tiny_model("llama")
    losses = []
    for text in PROMPTS:
        logprobs = bare_logits(model, text).double().log_softmax(-1)
        losses += [-float(logprobs[i, token]) for i, token in enumerate(text[1:])]
    want = torch.tensor(losses).mean().exp()
    found = await Instrument(engine, batch_size=4).perplexity(PROMPTS)
    assert found == pytest.approx(float(want), rel=1e-4)


async def test_divergence_and_log_odds_are_of_the_first_answer_token(
    engine: AsyncEngine, plan: SteeringPlan
) -> None:
    instrument = Instrument(engine, batch_size=4)
    plain = torch.stack(
        [bare_logits(tiny_model("llama"), text)[-1].log_softmax(-1) for text in PROMPTS]
    )
    rows = await instrument.next_token(PROMPTS)
    torch.testing.assert_close(rows, plain, rtol=0.0, atol=TOLERANCE)
    steered = await instrument.next_token(PROMPTS, plan)
    assert await instrument.kl(PROMPTS, plan) == pytest.approx(
        kl_divergences(plain, steered), abs=1e-3
    )
    p = plain.double().exp()[:, [5, 9]].sum(-1)
    assert await instrument.log_odds(PROMPTS, [5, 9]) == pytest.approx(
        (p.log() - (1 - p).log()).tolist(), abs=1e-3
    )


async def test_answers_are_greedy_and_in_order(engine: AsyncEngine, plan: SteeringPlan) -> None:
    instrument = Instrument(engine, batch_size=4)
    tokens = await instrument.completions(PROMPTS, max_tokens=5)
    model = tiny_model("llama")
    for prompt, answer in zip(PROMPTS, tokens, strict=True):
        known = list(prompt)
        for token in answer:
            assert int(bare_logits(model, known)[-1].argmax()) == token
            known.append(token)
    texts = await instrument.answers(PROMPTS, max_tokens=5)
    assert len(texts) == len(PROMPTS)
    assert texts != await instrument.answers(PROMPTS, plan=plan, max_tokens=5)


async def test_every_batch_is_told(engine: AsyncEngine) -> None:
    told: list[tuple[int, int]] = []

    async def on_batch(done: int, total: int) -> None:
        told.append((done, total))

    await Instrument(engine, batch_size=4, on_batch=on_batch).next_token(PROMPTS)
    assert told == [(4, 11), (8, 11), (11, 11)]


async def test_a_full_queue_is_waited_for(engine: AsyncEngine) -> None:
    """Chats fill the queue: the job's batch is refused, asks again, and gets its turn."""
    sampling = SamplingParams(max_tokens=20, ignore_eos=True)

    async def chat(name: str) -> int:
        request = GenerationRequest(name, (1, 2, 3), sampling)
        return sum([len(output.token_ids) async for output in engine.generate(request)])

    chats = asyncio.gather(*(chat(f"chat{i}") for i in range(6)))
    await asyncio.sleep(0)
    instrument = Instrument(engine, batch_size=6)
    rows = await instrument.next_token(PROMPTS)
    assert await chats == [20] * 6
    assert rows.shape[0] == len(PROMPTS)
    assert int(instrument._next_id().split("-")[1]) > 2, "no batch was asked for twice"


async def test_a_cancelled_measurement_leaves_nothing_behind(engine: AsyncEngine) -> None:
    started = asyncio.Event()

    async def on_batch(_done: int, _total: int) -> None:
        started.set()

    instrument = Instrument(engine, batch_size=3, on_batch=on_batch)
    task = asyncio.create_task(instrument.answers(PROMPTS, max_tokens=40))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    steps = engine.stats().step_seconds.num_steps
    await until_idle(engine)
    assert engine.stats().step_seconds.num_steps <= steps + 3
    assert engine.stats().kv_cache_usage_ratio == 0.0


async def test_the_error_of_one_prompt_ends_the_measurement(engine: AsyncEngine) -> None:
    instrument = Instrument(engine, batch_size=4)
    too_long = [*PROMPTS[:2], tuple([1] * 80)]
    for call in (
        instrument.answers(too_long, max_tokens=4),
        instrument.next_token(too_long),
        instrument.capture(too_long, [POINT]),
    ):
        with pytest.raises(PromptTooLongError):
            await call
    await until_idle(engine)
    assert engine.stats().kv_cache_usage_ratio == 0.0
