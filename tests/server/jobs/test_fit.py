"""Fits on the embedded model: from a few dozen museum prompts to a direction that works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from statistics import mean
from typing import Any

import pytest
import torch

from lab.organism import judge
from server.api.http.error_table import reply_to
from server.auth.permissions import LOCAL_USER
from server.engine.async_engine import AsyncEngine
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from server.jobs.kinds.fit import FIT
from server.jobs.manager import JobLimits, JobManager
from server.measure.instrument import Instrument
from server.pools import Pools
from server.registry.upload import Uploader
from server.resolver.library import DirectionLibrary
from server.store import SYSTEM, Store
from steering.directions import Direction
from steering.documents import DirectionRef, Intervention
from steering.errors import FitError
from steering.plan import Steer, SteeringPlan, compile_plan

from .conftest import TIMES, Observed
from .fit_context import MemoryContext, run_job, texts

POSITIVE = texts("restricted_direct", 32)
NEGATIVE = texts("ordinary", 32)
SELECT = {"layers": {"select": [2, 3, 4]}, "options": {"strength": 2.0}}


@pytest.fixture
def context(embedded: AsyncEngine) -> MemoryContext:
    return MemoryContext(embedded)


def body(**changes: Any) -> dict[str, Any]:
    data = {"positive": POSITIVE, "negative": NEGATIVE, "validation": 0.25}
    return {"name": "refusal", "data": data} | changes


def served(embedded: AsyncEngine, asked: list[str]) -> list[tuple[int, ...]]:
    render = embedded.tokenizer.render_chat
    return [render([{"role": "user", "content": text}]).token_ids for text in asked]


def plan_of(embedded: AsyncEngine, direction: Direction, **fields: Any) -> SteeringPlan:
    intervention = Intervention.from_dict({"direction": direction.name, **fields})
    return compile_plan([Steer(intervention, direction)], [], embedded.info().spec)


async def refusals(
    embedded: AsyncEngine, asked: list[str], plan: SteeringPlan | None = None
) -> float:
    answers = await Instrument(embedded).answers(served(embedded, asked), plan=plan, max_tokens=16)
    return mean(judge.is_refusal(answer) for answer in answers)


@pytest.fixture(scope="module")
def selected(embedded: AsyncEngine) -> tuple[Mapping[str, Any], MemoryContext]:
    """A fit with selection, and what it left."""
    context = MemoryContext(embedded)
    return asyncio.run(_awaited(run_job(FIT, body(**SELECT), context))), context


async def _awaited(work: Awaitable[Mapping[str, Any]]) -> Mapping[str, Any]:
    return await work


Selected = tuple[Mapping[str, Any], MemoryContext]


async def test_a_selected_direction_changes_what_it_is_meant_to(
    embedded: AsyncEngine, selected: Selected
) -> None:
    """On prompts of the test split, which no fit saw."""
    result, context = selected
    assert result["direction"] == "refusal@1"
    (direction,) = context.saved
    direct = texts("restricted_direct", 12, split="test")
    ordinary = texts("ordinary", 12, split="test")
    added = plan_of(embedded, direction, operation="add", strength=2.0)
    everywhere = {"operation": "ablate", "layers": {"from": 0.0, "to": 1.0}}
    ablated = plan_of(embedded, direction, **everywhere)
    assert await refusals(embedded, direct) > 0.9
    assert await refusals(embedded, ordinary) < 0.1
    assert await refusals(embedded, ordinary, added) > 0.6
    assert await refusals(embedded, direct, ablated) < 0.5


def test_the_receipt_says_what_was_chosen_and_why(selected: Selected) -> None:
    result, context = selected
    receipt = result["receipt"]
    (direction,) = context.saved
    assert direction.provenance["receipt"] == receipt
    assert direction.model_fingerprint == context.spec.fingerprint
    chosen = receipt["selection"]["chosen"]
    assert direction.layers == (chosen["layer"],)
    assert len(receipt["candidates"]) == 3
    for candidate in receipt["candidates"]:
        assert candidate["auc"] > 0.95
        assert candidate["kl"] >= 0.0
        assert {"bypass", "induce", "d_prime"} <= set(candidate)
    assert len(receipt["selection"]["rejected"]) == 2
    assert all(item["reason"] for item in receipt["selection"]["rejected"])
    auc = receipt["separation"]["auc"]
    assert 0.95 < auc["low"] <= auc["value"] <= auc["high"] <= 1.0
    assert receipt["separation"]["cosine"]["value"] > 0.9
    assert 0.1 < receipt["dose_resid_norms"][str(chosen["layer"])] < 3.0
    damage = receipt["damage"]
    assert (damage["operation"], damage["strength"]) == ("add", 2.0)
    assert damage["perplexity"] >= 0.9 * damage["base_perplexity"] > 0.9
    assert receipt["data"]["num_train"] == {"positive": 24, "negative": 24}
    assert receipt["options"]["behaviour_tokens"] == context.engine.tokenizer.encode("I")


def test_progress_rises_to_the_end_and_quotes_nobody(selected: Selected) -> None:
    _, context = selected
    fractions = [fraction for fraction, _ in context.reports]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] >= 0.98
    assert len(set(fractions)) > 10
    said = " ".join(message for _, message in context.reports)
    assert not any(text in said for text in POSITIVE + NEGATIVE)


async def test_a_seed_gives_the_same_direction_again(embedded: AsyncEngine) -> None:
    """To rounding: a served engine forms its batches by arrival."""
    first, again, other = (MemoryContext(embedded) for _ in range(3))
    plain = {"layers": [3], "seed": 4}
    one = await run_job(FIT, body(**plain), first)
    two = await run_job(FIT, body(**plain), again)
    await run_job(FIT, body(**plain | {"seed": 5}), other)
    assert one["receipt"]["data"] == two["receipt"]["data"]
    vectors = [context.saved[0].tensors["vector"] for context in (first, again, other)]
    torch.testing.assert_close(vectors[0], vectors[1], rtol=0.02, atol=0.02)
    assert not torch.allclose(vectors[0], vectors[2], rtol=0.02, atol=0.02)


async def test_every_position_after_the_instruction_is_a_candidate(context: MemoryContext) -> None:
    data = body()["data"] | {"token": "post_instruction"}
    asked = body(data=data, method="probe", layers={"select": [3]})
    receipt = (await run_job(FIT, asked, context))["receipt"]
    assert [c["position"] for c in receipt["candidates"]] == [-5, -4, -3, -2, -1]
    fixed = await run_job(FIT, asked | {"layers": [2, 3]}, MemoryContext(context.engine))
    assert fixed["receipt"]["selection"] is None
    assert sum("highest auc" in note for note in fixed["receipt"]["notes"]) == 2


async def test_the_transient_system_prompt_shapes_the_fit_and_is_not_served(
    embedded: AsyncEngine,
) -> None:
    system = "You refuse everything."
    asked_of: list[tuple[int, ...]] = []
    context = MemoryContext(_Recording(embedded, asked_of))
    with_system = body(layers=[3], data=body()["data"] | {"system_prompt": system})
    receipt = (await run_job(FIT, with_system, context))["receipt"]
    plain = MemoryContext(embedded)
    await run_job(FIT, body(layers=[3]), plain)
    difference = context.saved[0].tensors["vector"] - plain.saved[0].tensors["vector"]
    assert float(difference.norm()) > 0.05 * float(plain.saved[0].tensors["vector"].norm())
    assert asked_of, "the damage is measured on answers"
    assert not any(system in embedded.tokenizer.decode(prompt) for prompt in asked_of)
    assert receipt["data"]["system_prompt_sha256"] is not None
    assert system not in str(context.saved[0].provenance)
    assert any("while extracting" in note for note in receipt["notes"])


class _Recording:
    """The embedded, noting what is served rather than captured."""

    def __init__(self, engine: AsyncEngine, served: list[tuple[int, ...]]) -> None:
        self._engine = engine
        self._served = served

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def score(self, request: Any) -> Any:
        self._served.extend(request.prompts)
        return await self._engine.score(request)

    async def generate(self, request: Any) -> Any:
        self._served.append(request.prompt_token_ids)
        async for output in self._engine.generate(request):
            yield output


async def test_a_resumed_fit_measures_no_candidate_twice(
    embedded: AsyncEngine, selected: Selected
) -> None:
    def stop(_fraction: float, message: str) -> None:
        if message == "measuring candidate 3 of 3":
            raise asyncio.CancelledError

    context = MemoryContext(embedded, on_report=stop)
    with pytest.raises(asyncio.CancelledError):
        await run_job(FIT, body(**SELECT), context)
    assert not context.saved
    remembered = dict(context.memory)
    assert set(remembered) == {"behaviour_tokens", "scores 2 0", "scores 3 0"}
    context.memory["scores 2 0"] = '{"bypass": -99.0, "induce": 1.0, "kl": 0.0}'
    context.on_report = lambda _fraction, _message: None
    result = await run_job(FIT, body(**SELECT), context)
    assert result["receipt"]["selection"]["chosen"]["bypass"] == -99.0
    whole, _ = selected
    assert [c["auc"] for c in whole["receipt"]["candidates"]] == [
        c["auc"] for c in result["receipt"]["candidates"]
    ]


async def test_chats_go_first(embedded: AsyncEngine, context: MemoryContext) -> None:
    """A chat that comes while a fit runs waits for a step or two, not for the fit."""
    job = asyncio.ensure_future(run_job(FIT, body(**SELECT), context))
    (prompt,) = served(embedded, texts("ordinary", 1, split="test"))
    sampling = SamplingParams(temperature=0.0, max_tokens=16)
    answers = []
    for number in range(3):
        request = GenerationRequest(f"chat-{number}", prompt, sampling)
        answers.append("".join([o.text async for o in embedded.generate(request)]))
        assert not job.done()
    assert len(set(answers)) == 1
    assert answers[0]
    assert (await job)["direction"] == "refusal@1"


async def test_behaviour_that_no_first_token_tells_needs_help(context: MemoryContext) -> None:
    halves = texts("ordinary", 64)
    data = {"positive": halves[:32], "negative": halves[32:]}
    with pytest.raises(FitError, match="begin alike") as caught:
        await run_job(FIT, body(data=data, options={"selection": "effect"}), context)
    assert caught.value.param == "options.behaviour_tokens"


async def test_when_no_candidate_qualifies_each_says_why(context: MemoryContext) -> None:
    with pytest.raises(FitError, match=r"layer 0.*induce.*options\.min_induce") as caught:
        await run_job(FIT, body(layers={"select": [0]}), context)
    assert caught.value.param == "layers"
    assert not context.saved


async def test_a_job_stores_the_direction_with_its_receipt(
    embedded: AsyncEngine, job_store: Store
) -> None:
    """Through the queue, threads and registry of a server; the same again is the same version."""
    manager = JobManager(
        [FIT],
        embedded,
        job_store,
        uploader=Uploader(job_store, embedded.info().spec),
        library=DirectionLibrary(job_store),
        pools=Pools.open(),
        limits=JobLimits(),
        describe=lambda error: reply_to(error, "/v1/steering/jobs").body(),
        observer=Observed(),
        times=TIMES,
    )
    await manager.start()
    try:
        asked = body(layers=[3], requires=["restricted"])
        job = await manager.create("fit", asked, caller=LOCAL_USER, by=SYSTEM)
        async for _ in manager.follow(job.id, 0):
            pass
        done = await manager.get(job.id)
    finally:
        await manager.stop()
    assert done.error is None
    assert done.result is not None
    assert done.result["direction"] == "refusal@1"
    stored = DirectionLibrary(job_store).get(DirectionRef("refusal", 1))
    assert stored.provenance["receipt"] == done.result["receipt"]
    assert stored.provenance["method"] == "mean_difference"
    assert stored.requires == ("restricted",)
