"""An engine without a thread: what the served one gives, the same in every run, and its errors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import torch

from server.engine.assembly import assemble
from server.engine.async_engine import AsyncEngine
from server.engine.errors import PromptTooLongError
from server.engine.loading import LoadedModel
from server.engine.outputs import RequestOutput
from server.engine.request import CaptureRequest, GenerationRequest, Pooling, ScoreRequest
from server.engine.sampling import SamplingParams
from server.engine.sync_engine import SyncEngine
from steering.sites import Site, SitePoint

from .harness import _remove_hooks, load_tiny

POINT = SitePoint(1, Site.RESID_POST)
PROMPTS = ((1, 2, 3, 4, 5, 6, 7), (9, 8, 7), tuple(range(20, 41)))
GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def engine(loaded: LoadedModel) -> SyncEngine:
    _remove_hooks(loaded.model)
    return SyncEngine(loaded)


def requests(prompts: Sequence[tuple[int, ...]] = PROMPTS) -> list[GenerationRequest]:
    return [GenerationRequest(f"r{i}", prompt, GREEDY) for i, prompt in enumerate(prompts)]


def tokens(outputs: Sequence[RequestOutput]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def test_it_gives_what_the_served_engine_gives(loaded: LoadedModel, engine: SyncEngine) -> None:
    capture = CaptureRequest("c", PROMPTS, (POINT,), Pooling.ALL)
    score = ScoreRequest("s", PROMPTS)
    found = engine.generate(requests())
    captured, scored = engine.capture(capture), engine.score(score)
    _remove_hooks(loaded.model)
    served = AsyncEngine(assemble(loaded), loaded.tokenizer, loaded.info, loaded.config)

    async def ask(request: GenerationRequest) -> list[RequestOutput]:
        return [output async for output in served.generate(request)]

    async def everything() -> None:
        for request, outputs in zip(requests(), found, strict=True):
            assert tokens(await ask(request)) == tokens(outputs)
            assert [o.finish_reason is not None for o in outputs] == [False] * 5 + [True]
        read = (await served.capture(capture)).sequences[POINT]
        torch.testing.assert_close(captured.sequences[POINT], read, rtol=0.0, atol=1e-5)
        for known, again in zip(
            scored.token_logprobs, (await served.score(score)).token_logprobs, strict=True
        ):
            assert known == pytest.approx(again, abs=1e-5)

    asyncio.run(everything())
    served.close()


def test_a_run_repeats_to_the_bit(engine: SyncEngine) -> None:
    first, second = (
        engine.capture(CaptureRequest(name, PROMPTS, (POINT,), Pooling.ALL)).sequences[POINT]
        for name in ("a", "b")
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_one_failure_ends_the_call_and_not_the_engine(engine: SyncEngine) -> None:
    too_long = tuple(range(1, 80))
    with pytest.raises(PromptTooLongError):
        engine.generate(requests([PROMPTS[0], too_long, PROMPTS[1]]))
    with pytest.raises(PromptTooLongError):
        engine.capture(CaptureRequest("c", (too_long,), (POINT,)))
    assert len(tokens(engine.generate(requests())[2])) == 6
