"""Scores of known text: what plain transformers gives, whatever the chunks and the neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from server.engine.assembly import assemble
from server.engine.async_engine import AsyncEngine
from server.engine.errors import NonFiniteOutputError, RequestRejectedError
from server.engine.loading import LoadedModel
from server.engine.outputs import PromptScore
from server.engine.reading import score_requests, score_result, score_rows
from server.engine.request import CaptureRequest, Pooling, ScoreRequest
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention
from steering.plan import Steer, compile_plan
from steering.sites import Site, SitePoint
from tests.models import tiny_model

from .harness import EngineHarness, RecordingSink, _remove_hooks, bare_logits, load_tiny
from .random_traffic import random_traffic
from .reference import reference_logits

TOLERANCE = 2e-4
TEXTS = ((1, 2, 3, 4, 5, 6, 7, 8, 9), (9, 8, 7, 6, 5), (3,), tuple(range(20, 53)))
POINT = SitePoint(1, Site.RESID_POST)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
async def engine(loaded: LoadedModel) -> AsyncIterator[AsyncEngine]:
    _remove_hooks(loaded.model)
    engine = AsyncEngine(assemble(loaded), loaded.tokenizer, loaded.info, loaded.config)
    yield engine
    engine.close()


def push(scope: str, strength: float = 3.0) -> Steer:
    vector = torch.linspace(-1.0, 1.0, 32)
    direction = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": vector})
    document = {
        "operation": "add",
        "direction": "v",
        "strength": strength,
        "scope": {"tokens": scope},
    }
    return Steer(Intervention.from_dict(document), direction)


def logprobs(token_ids: tuple[int, ...]) -> Tensor:
    """[T, V] of plain transformers, the softmax in float64."""
    return bare_logits(tiny_model("llama"), token_ids).double().log_softmax(dim=-1)


def check(score: PromptScore, want: Tensor, text: tuple[int, ...], window: tuple[int, int]) -> None:
    start, stop = window
    known = text[start + 1 : stop + 1]
    expected = [float(want[start + i, token]) for i, token in enumerate(known)]
    assert score.token_logprobs == pytest.approx(expected, abs=TOLERANCE)
    assert score.distributions is not None
    assert score.distributions.dtype is torch.float32
    torch.testing.assert_close(
        score.distributions.double(), want[start:stop], rtol=0.0, atol=TOLERANCE
    )


async def test_scores_are_those_of_plain_transformers(engine: AsyncEngine) -> None:
    result = await engine.score(ScoreRequest("s", TEXTS, full=True))
    for text, values, rows in zip(TEXTS, result.token_logprobs, result.distributions, strict=True):
        assert len(values) == len(text) - 1  # what follows the end is not known
        check(PromptScore(values, rows), logprobs(text), text, (0, len(text)))


async def test_windows_give_the_positions_asked_and_no_others(engine: AsyncEngine) -> None:
    windows = ((0, 1), (2, 4), (0, 1), (30, 33))
    result = await engine.score(ScoreRequest("s", TEXTS, windows=windows, full=True))
    found = zip(TEXTS, windows, result.token_logprobs, result.distributions, strict=True)
    for text, window, values, rows in found:
        check(PromptScore(values, rows), logprobs(text), text, window)
    values_only = await engine.score(ScoreRequest("v", TEXTS, windows=windows))
    assert values_only.distributions == ()
    assert values_only.token_logprobs == result.token_logprobs


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "qwen3_moe"])
@pytest.mark.parametrize("seed", range(3))
def test_neither_chunks_nor_neighbours_nor_preemption_change_a_score(
    tmp_path_factory: pytest.TempPathFactory, family: str, seed: int
) -> None:
    """Steered and plain texts among random traffic, few blocks, tiny steps, rows in slices."""
    rng = np.random.default_rng(seed)
    harness = EngineHarness(
        load_tiny(family, tmp_path_factory.mktemp(family)),
        max_num_batched_tokens=int(rng.integers(5, 30)),
        num_kv_blocks=14,
    )
    harness.scheduler.limits = _with_rows(harness, int(rng.integers(1, 9)))
    steer = push("generated")
    plan = compile_plan([steer], [], harness.loaded.spec)
    traffic = random_traffic(harness, rng, count=5)
    plain, steered = (
        ScoreRequest(name, TEXTS, full=True, plan=which, steering_prompt_tokens=(4, 1, 1, 30))
        for name, which in (("plain", None), ("steered", plan))
    )
    parts = [*score_requests(plain), *score_requests(steered)]
    sinks = harness.run(*parts, *(item.traffic for item in traffic))[: len(parts)]
    bare = tiny_model(family)
    for part, sink in zip(parts, sinks, strict=True):
        steers = [] if part.plan is None else [steer]
        boundary = part.steering_prompt_tokens
        assert boundary is not None
        text = part.prompt_token_ids
        want = reference_logits(bare, harness.loaded.spec, text, boundary, steers)
        check(_score(sink), want.double().log_softmax(dim=-1), text, (0, len(text)))


def _with_rows(harness: EngineHarness, count: int) -> object:
    return replace(harness.scheduler.limits, max_num_prompt_logits=count)


def _score(sink: RecordingSink) -> PromptScore:
    score = sink.outputs[-1].score
    assert score is not None
    return score


def test_a_long_text_never_has_more_rows_than_allowed(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded, max_num_batched_tokens=64)
    harness.scheduler.limits = _with_rows(harness, 7)
    rows: list[int] = []
    runner = harness.core._runner
    original = runner.run

    def run(output: object) -> object:
        result = original(output)  # type: ignore[arg-type]
        rows.append(sum(len(found.logits) for found in result.prompt_logits))
        return result

    runner.run = run  # type: ignore[method-assign,assignment]
    windows = ((10, 50), (0, 3))
    request = ScoreRequest("s", (tuple(range(60)), tuple(range(5))), windows=windows, full=True)
    sinks = harness.run(*score_requests(request), harness.request((1, 2, 3)))
    assert max(rows) == 7
    assert sum(rows) == 43
    check(_score(sinks[0]), logprobs(request.prompts[0]), request.prompts[0], (10, 50))


async def test_the_boundary_decides_what_counts_as_generated(
    engine: AsyncEngine, loaded: LoadedModel
) -> None:
    text = TEXTS[0]
    plan = compile_plan([push("generated")], [], loaded.spec)
    plain, all_prompt, half = await asyncio.gather(
        engine.score(ScoreRequest("a", (text,))),
        engine.score(ScoreRequest("b", (text,), plan=plan)),
        engine.score(ScoreRequest("c", (text,), plan=plan, steering_prompt_tokens=(4,))),
    )
    assert all_prompt.token_logprobs == plain.token_logprobs
    assert half.token_logprobs[0][:4] == pytest.approx(plain.token_logprobs[0][:4], abs=TOLERANCE)
    assert abs(half.token_logprobs[0][4] - plain.token_logprobs[0][4]) > 0.01


async def test_captures_have_windows_and_boundaries_too(
    engine: AsyncEngine, loaded: LoadedModel
) -> None:
    prompts, windows = TEXTS[:2], ((2, 5), (4, 5))
    asked = CaptureRequest("a", prompts, (POINT,), Pooling.ALL, windows=windows)
    parts = await engine.capture(asked)
    means = await engine.capture(replace(asked, pooling=Pooling.MEAN))
    for index, (prompt, (start, stop)) in enumerate(zip(prompts, windows, strict=True)):
        with torch.inference_mode():
            model = tiny_model("llama")
            states = model(input_ids=torch.tensor([prompt]), output_hidden_states=True)
            want = states.hidden_states[2][0, start:stop]
        torch.testing.assert_close(parts.sequences[POINT][index], want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(means.pooled[POINT][index], want.mean(0), rtol=1e-4, atol=1e-4)
    later = SitePoint(2, Site.RESID_PRE)  # after the edit
    plan = compile_plan([push("generated")], [], loaded.spec)
    steered = await engine.capture(
        CaptureRequest("s", prompts[:1], (later,), Pooling.ALL, None, plan, None, (3,))
    )
    plain = await engine.capture(CaptureRequest("p", prompts[:1], (later,), Pooling.ALL))
    moved = (steered.sequences[later][0] - plain.sequences[later][0]).norm(dim=-1) > 1e-3
    assert moved.tolist() == [False] * 3 + [True] * 6


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"windows": ((0, 1),)}, "windows"),
        ({"windows": ((0, 1), (3, 3), (0, 1), (0, 1))}, "windows"),
        ({"windows": ((0, 10), (0, 1), (0, 1), (0, 1))}, "windows"),
        ({"steering_prompt_tokens": (1, 2)}, "steering_prompt_tokens"),
    ],
)
async def test_windows_and_boundaries_that_do_not_fit_are_refused(
    engine: AsyncEngine, changes: dict[str, tuple[tuple[int, int], ...]], param: str
) -> None:
    for call in (
        engine.score(ScoreRequest("s", TEXTS, **changes)),  # type: ignore[arg-type]
        engine.capture(CaptureRequest("c", TEXTS, (POINT,), Pooling.ALL, **changes)),  # type: ignore[arg-type]
    ):
        with pytest.raises(RequestRejectedError) as caught:
            await call
        assert caught.value.param == param


async def test_windows_with_the_last_token_are_refused(engine: AsyncEngine) -> None:
    request = CaptureRequest("c", TEXTS[:1], (POINT,), windows=((0, 1),))
    with pytest.raises(RequestRejectedError) as caught:
        await engine.capture(request)
    assert caught.value.param == "windows"


async def test_a_text_whose_logits_are_not_finite_fails(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = engine._core._runner
    original = runner.run

    def run(output: object) -> object:
        result = original(output)  # type: ignore[arg-type]
        with torch.inference_mode():
            for found in result.prompt_logits:
                found.logits[0, 0] = float("nan")
        return result

    monkeypatch.setattr(runner, "run", run)
    with pytest.raises(NonFiniteOutputError):
        await engine.score(ScoreRequest("s", TEXTS[:2]))


def test_rows_are_scored_in_float32_slices() -> None:
    logits = torch.randn(600, 11).bfloat16()
    score = score_rows(logits, [int(i) % 11 for i in range(599)], full=True)
    assert score is not None
    want = logits.double().log_softmax(dim=-1)
    assert score.distributions is not None
    torch.testing.assert_close(score.distributions.double(), want, rtol=0.0, atol=1e-5)
    expected = [float(want[i, i % 11]) for i in range(599)]
    assert score.token_logprobs == pytest.approx(expected, abs=1e-5)
    assert score_result(ScoreRequest("s", ((1,),)), [score]).distributions[0].shape == (600, 11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_row_has_no_score(bad: float) -> None:
    logits = torch.zeros(3, 4)
    logits[2, 1] = bad
    assert score_rows(logits, [0, 0], full=False) is None
    assert score_rows(torch.full((2, 4), -torch.inf), [0], full=False) is None
