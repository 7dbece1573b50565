"""The engine behind an event loop: every request ends, faults stay where they belong."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import server
from server.engine.assembly import assemble
from server.engine.async_engine import AsyncEngine
from server.engine.engine import gather_or_cancel
from server.engine.errors import (
    EngineDeadError,
    EngineDrainingError,
    GenerationError,
    PromptTooLongError,
    RequestAbortedError,
    RequestRejectedError,
    SlowClientError,
)
from server.engine.loading import LoadedModel
from server.engine.outputs import FinishReason, RequestOutput, ScoreResult
from server.engine.request import CaptureRequest, GenerationRequest, Pooling, ScoreRequest
from server.engine.sampling import SamplingParams
from server.measure.scoring import score_text
from steering.sites import Site, SitePoint
from tests.models import tiny_model

from .harness import _remove_hooks, load_tiny


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny("llama", tmp_path_factory.mktemp("llama"), max_model_len=256)


@pytest.fixture
async def engine(loaded: LoadedModel) -> AsyncIterator[AsyncEngine]:
    _remove_hooks(loaded.model)
    engine = AsyncEngine(assemble(loaded), loaded.tokenizer, loaded.info, loaded.config)
    yield engine
    engine.close()


class SteeredPlan:
    """As much of a plan as says that there is one."""

    interventions = ("something",)


def request(request_id: str, **sampling: Any) -> GenerationRequest:
    params = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True, **sampling}
    return GenerationRequest(request_id, (5, 6, 7), SamplingParams(**params))


async def collect(engine: AsyncEngine, asked: GenerationRequest) -> list[RequestOutput]:
    return [output async for output in engine.generate(asked)]


async def drained_of(outputs: AsyncIterator[RequestOutput]) -> None:
    async for _ in outputs:
        pass


async def until_idle(engine: AsyncEngine) -> None:
    while engine.stats().num_requests_running or engine.stats().num_requests_waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_outputs_are_deltas_and_the_last_one_says_why(engine: AsyncEngine) -> None:
    outputs = await collect(engine, request("a"))
    assert sum(len(output.token_ids) for output in outputs) == 8
    assert [output.finish_reason for output in outputs[:-1]] == [None] * (len(outputs) - 1)
    assert outputs[-1].finish_reason is FinishReason.LENGTH
    text = engine.tokenizer.decode(
        [token for output in outputs for token in output.token_ids], skip_special_tokens=True
    )
    replacement = "\ufffd"  # a character still incomplete at the end becomes one of these
    assert "".join(o.text for o in outputs).rstrip(replacement) == text.rstrip(replacement)


async def test_who_comes_during_a_step_waits(engine: AsyncEngine) -> None:
    """Or the door would let in, all through a long step, what the queue has no room for."""
    step, over = threading.Event(), threading.Event()
    engine._submit(lambda: (step.set(), over.wait())[0])
    await asyncio.to_thread(step.wait)
    asked = [asyncio.create_task(collect(engine, request(name))) for name in "abc"]
    engine.abort("unknown")
    await asyncio.sleep(0)
    assert engine.stats().num_requests_waiting == 3
    over.set()
    await asyncio.gather(*asked)
    await until_idle(engine)
    assert engine.stats().num_requests_waiting == 0


async def test_a_rejected_request_fails_before_any_output(engine: AsyncEngine) -> None:
    asked = GenerationRequest("long", tuple([1] * 300), SamplingParams(max_tokens=4))
    with pytest.raises(PromptTooLongError):
        await collect(engine, asked)


async def test_closing_the_iterator_frees_the_request_within_a_step(engine: AsyncEngine) -> None:
    """F1: a client that goes away."""
    outputs = engine.generate(request("gone", max_tokens=200))
    await anext(outputs)
    steps = engine.stats().step_seconds.num_steps
    await outputs.aclose()
    await until_idle(engine)
    assert engine.stats().step_seconds.num_steps <= steps + 3
    assert engine.stats().kv_cache_usage_ratio == 0.0


async def test_abort_ends_the_stream_with_an_error(engine: AsyncEngine) -> None:
    outputs = engine.generate(request("stop", max_tokens=200))
    await anext(outputs)
    engine.abort("stop")
    with pytest.raises(RequestAbortedError):
        await drained_of(outputs)


async def test_a_fault_in_one_request_leaves_the_others_alone(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F3: the failing one gets its error; the other gets what it gets without it."""
    alone = await collect(engine, request("alone"))
    original = engine.tokenizer.detokenizer

    def detokenizer(prompt: Any, stops: Any = (), **options: Any) -> Any:
        made = original(prompt, stops, **options)
        if stops == ("boom",):
            monkeypatch.setattr(made, "add", fail, raising=False)
        return made

    def fail(_token_id: int) -> str:
        raise RuntimeError("a bug in one request")

    monkeypatch.setattr(engine.tokenizer, "detokenizer", detokenizer)
    failing, beside = await asyncio.gather(
        collect(engine, request("bad", stop=("boom",))),
        collect(engine, request("good")),
        return_exceptions=True,
    )
    assert isinstance(failing, GenerationError)
    assert not isinstance(beside, BaseException)
    assert [o.token_ids for o in beside] == [o.token_ids for o in alone]


async def test_a_failed_step_ends_its_requests_and_the_engine_goes_on(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4: an exception nobody owns."""
    runner = engine._core._runner
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run", lambda _: 1 / 0)
        with pytest.raises(EngineDeadError):
            await collect(engine, request("doomed"))
    assert (await collect(engine, request("after")))[-1].finish_reason is not None
    assert engine.stats().is_healthy


@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize("kind", ["score", "capture"])
async def test_one_text_that_fails_ends_the_others_at_once(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, kind: str, failing: int
) -> None:
    """Whichever it is: the others, which would never end, are not waited for and are aborted."""
    core, aborted = engine._core, []
    add, abort = core.add, core.abort

    def add_one(spec: GenerationRequest, sink: Any) -> None:
        if spec.request_id == f"x-{failing}":
            add(spec, sink)  # and it is refused: a token the model does not have

    def note_abort(request_id: str) -> None:
        aborted.append(request_id)
        abort(request_id)

    monkeypatch.setattr(core, "add", add_one)
    monkeypatch.setattr(core, "abort", note_abort)
    prompts = tuple((5, 260) if index == failing else (5, 6, 7) for index in range(3))
    points = (SitePoint(1, Site.RESID_POST),)
    asked: Any = (
        engine.score(ScoreRequest("x", prompts))
        if kind == "score"
        else engine.capture(CaptureRequest("x", prompts, points))
    )
    with pytest.raises(RequestRejectedError, match="260"):
        await asyncio.wait_for(asked, 60)
    while engine._commands:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert {"x-0", "x-1", "x-2"} <= set(aborted) | {f"x-{failing}"}


async def test_failing_steps_in_a_row_end_the_engine(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._core._runner, "run", lambda _: 1 / 0)
    for attempt in range(4):
        with pytest.raises(EngineDeadError):
            await collect(engine, request(f"doomed-{attempt}"))
    assert not engine.stats().is_healthy


@pytest.mark.parametrize("stuck", ["model.embed_tokens", "model.layers.1", "lm_head"])
async def test_a_forward_that_is_stuck_is_unhealthy_and_not_waited_for(
    loaded: LoadedModel, stuck: str
) -> None:
    """F7: the heartbeat stops wherever the forward does, and closing does not hang too."""
    _remove_hooks(loaded.model)
    config = replace(loaded.config, step_timeout_seconds=0.2)
    engine = AsyncEngine(assemble(loaded), loaded.tokenizer, loaded.info, config)
    release = threading.Event()
    module = loaded.model.get_submodule(stuck)
    hook = module.register_forward_hook(lambda *_: release.wait() and 1 / 0)
    waiting = asyncio.ensure_future(collect(engine, request("stuck")))
    while engine.stats().is_healthy:  # noqa: ASYNC110
        await asyncio.sleep(0)
    engine.close()
    assert engine._thread.is_alive()
    release.set()
    with pytest.raises((EngineDeadError, EngineDrainingError)):
        await waiting
    engine._thread.join()
    hook.remove()


async def test_a_reader_too_far_behind_fails_alone(loaded: LoadedModel) -> None:
    """F2: the engine does not wait for it, and its memory is bounded."""
    _remove_hooks(loaded.model)
    config = replace(loaded.config, stream_queue_size=4)
    engine = AsyncEngine(assemble(loaded), loaded.tokenizer, loaded.info, config)
    try:
        outputs = engine.generate(request("slow", max_tokens=200))
        await anext(outputs)
        await until_idle(engine)
        with pytest.raises(SlowClientError):
            await drained_of(outputs)
    finally:
        engine.close()


async def test_draining_lets_running_requests_finish_and_takes_no_more(
    engine: AsyncEngine,
) -> None:
    """F8: what runs finishes; what is left at the deadline fails with a named error."""
    running = asyncio.ensure_future(collect(engine, request("running", max_tokens=40)))
    while not engine.stats().num_requests_running:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    drained = asyncio.ensure_future(engine.drain(30.0))
    await asyncio.sleep(0)
    with pytest.raises(EngineDrainingError):
        await collect(engine, request("late"))
    assert (await running)[-1].finish_reason is FinishReason.LENGTH
    await drained


async def test_draining_fails_what_is_left_at_the_deadline(engine: AsyncEngine) -> None:
    outputs = engine.generate(request("endless", max_tokens=200))
    await anext(outputs)
    await engine.drain(0.0)
    with pytest.raises(EngineDrainingError):
        await drained_of(outputs)


@pytest.mark.parametrize("pooling", list(Pooling))
async def test_capture_reads_what_the_bare_model_computes(
    engine: AsyncEngine, pooling: Pooling
) -> None:
    prompts = ((1, 2, 3, 4), (9, 8, 7, 6, 5, 4, 3))
    points = (SitePoint(1, Site.RESID_POST), SitePoint(2, Site.RESID_PRE))
    result = await engine.capture(CaptureRequest("c", prompts, points, pooling))
    model = tiny_model("llama")
    for index, prompt in enumerate(prompts):
        with torch.inference_mode():
            hidden = model(
                input_ids=torch.tensor([prompt]), output_hidden_states=True
            ).hidden_states[2][0]
        for point in points:  # the input of block 2 is the output of block 1
            if pooling is Pooling.ALL:
                torch.testing.assert_close(
                    result.sequences[point][index], hidden, rtol=1e-4, atol=1e-4
                )
            else:
                want = hidden[-1] if pooling is Pooling.LAST else hidden.mean(dim=0)
                torch.testing.assert_close(result.pooled[point][index], want, rtol=1e-4, atol=1e-4)


async def test_scores_of_a_prompt_equal_the_bare_model(engine: AsyncEngine) -> None:
    asked = request("score", max_tokens=0, prompt_logprobs=3)
    output = (await collect(engine, asked))[-1]
    model = tiny_model("llama")
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0].log_softmax(-1)
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    for position in (1, 2):
        entry = output.prompt_logprobs[position]
        assert entry is not None
        token_id = (5, 6, 7)[position]
        assert entry.chosen.token_id == token_id
        assert entry.chosen.logprob == pytest.approx(
            float(logits[position - 1, token_id]), abs=1e-4
        )
        assert [t.token_id for t in entry.top] == logits[position - 1].topk(3).indices.tolist()
    assert output.num_output_tokens == 0


async def test_stop_strings_and_stop_tokens_end_the_answer(engine: AsyncEngine) -> None:
    plain = await collect(engine, request("plain"))
    token_ids = [token for output in plain for token in output.token_ids]
    by_token = await collect(engine, request("token", stop_token_ids=(token_ids[3],)))
    assert by_token[-1].finish_reason is FinishReason.STOP
    assert by_token[-1].stop_reason == token_ids[3]
    assert by_token[-1].num_output_tokens == token_ids.index(token_ids[3]) + 1


async def test_seeds_choose_the_same_tokens_in_any_batch(engine: AsyncEngine) -> None:
    asked = {"temperature": 1.0, "seed": 11, "max_tokens": 12}
    alone = await collect(engine, request("alone", **asked))
    crowd = [collect(engine, request(f"x{i}", temperature=1.0, seed=i)) for i in range(5)]
    results = await asyncio.gather(*crowd, collect(engine, request("again", **asked)))
    tokens = [[t for o in outputs for t in o.token_ids] for outputs in (alone, results[-1])]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt_token_ids": (5, 260)}, "prompt"),
        ({"sampling": SamplingParams(logit_bias={9999: 1.0})}, "logit_bias"),
        ({"sampling": SamplingParams(stop_token_ids=(260,))}, "stop_token_ids"),
    ],
)
async def test_token_ids_the_model_does_not_have_are_refused(
    engine: AsyncEngine, change: dict[str, Any], param: str
) -> None:
    """They would fail the step, and with it the requests beside."""
    with pytest.raises(RequestRejectedError, match=r"260|9999") as caught:
        await collect(engine, replace(request("bad"), **change))
    assert caught.value.param == param


@pytest.mark.parametrize("failing", range(4))
async def test_together_all_end_when_one_fails(failing: int) -> None:
    """Whatever it fails with, and only when all have ended."""
    ended: list[int] = []

    async def work(index: int) -> int:
        try:
            if index == failing:
                await asyncio.sleep(0)
                raise GenerationError("this one") if failing % 2 else ValueError("this one")
            await asyncio.Event().wait()  # for ever
        finally:
            ended.append(index)
        return index

    with pytest.raises((GenerationError, ValueError), match="this one"):
        await gather_or_cancel(work(index) for index in range(4))
    assert sorted(ended) == [0, 1, 2, 3]


@pytest.mark.parametrize("failing", ["score", "score-base"])
async def test_a_score_that_fails_ends_its_unsteered_twin(
    engine: AsyncEngine, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    async def score(asked: ScoreRequest) -> ScoreResult:
        try:
            await asyncio.sleep(0)  # so that its twin has begun
            if asked.request_id == failing:
                raise GenerationError("this one")
            await asyncio.Event().wait()
        finally:
            ended.append(asked.request_id)
        raise AssertionError

    monkeypatch.setattr(engine, "score", score)
    asked = replace(request("score"), plan=SteeredPlan())  # type: ignore[arg-type]
    with pytest.raises(GenerationError, match="this one"):
        await score_text(engine, asked, 0, compute=asyncio.to_thread)
    assert sorted(ended) == ["score", "score-base"]


def test_nothing_runs_side_by_side_that_outlives_a_failure() -> None:
    """`asyncio.gather` lets the others go on; it is used only to wait for what was cancelled."""
    for path in Path(server.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "asyncio.gather":
                assert "return_exceptions" in {keyword.arg for keyword in node.keywords}, path
