"""Drafts from a request's own text change how fast an answer comes, and nothing in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from server.engine.loading import LoadedModel
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from server.engine.scheduler import PromptLookup
from steering.documents import Scope
from steering.plan import compile_plan
from tests.server.engine.make_request import ScopedPlan, make_request

from .harness import EngineHarness, RecordingSink, Traffic, load_tiny
from .random_traffic import random_steers

TOLERANCE = 1e-4
SAMPLING: Mapping[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"temperature": 1.5, "top_k": 4},
    "log-probabilities": {"logprobs": 3},
    "stop token": {"stop_token_ids": (5, 6, 7)},
    "min_tokens": {"ignore_eos": False, "min_tokens": 20},
    "penalty": {"frequency_penalty": 0.2},
}


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


def traffic_of(harness: EngineHarness, seed: int) -> list[Traffic]:
    """Requests that repeat themselves, steered in every way, with every kind of sampling."""
    rng, spec = np.random.default_rng(seed), harness.loaded.spec
    items = []
    for index, (name, sampling) in enumerate(SAMPLING.items()):
        phrase = [int(token) for token in rng.integers(0, 24, size=5)]
        steers = random_steers(spec, rng) if index % 3 else ()
        request = harness.request(
            phrase * 3,
            compile_plan(steers, [], spec) if steers else None,
            request_id=f"{name} {seed}",
            **{"max_tokens": 40, "seed": seed, **sampling},
        )
        items.append(Traffic(request, arrives=int(rng.integers(0, 30))))
    return items


def run(
    loaded: LoadedModel, seed: int, num_tokens: int
) -> tuple[EngineHarness, dict[str, RecordingSink]]:
    harness = EngineHarness(loaded, prompt_lookup_tokens=num_tokens, num_kv_blocks=40)
    traffic = traffic_of(harness, seed)
    sinks = harness.run(*traffic)
    return harness, {t.request.request_id: s for t, s in zip(traffic, sinks, strict=True)}


@pytest.mark.parametrize("seed", range(2))
def test_answers_and_reports_are_those_without(loaded: LoadedModel, seed: int) -> None:
    plain, expected = run(loaded, seed, 0)
    drafting, found = run(loaded, seed, 8)
    stats = drafting.core.stats(is_healthy=True, is_draining=False)
    assert 0 < stats.num_accepted_tokens < stats.num_drafted_tokens
    for request_id, sink in found.items():
        assert sink.token_ids == expected[request_id].token_ids
        assert sink.text == expected[request_id].text
        want, got = expected[request_id].outputs[-1], sink.outputs[-1]
        assert (got.finish_reason, got.stop_reason) == (want.finish_reason, want.stop_reason)
        assert got.steered_tokens == want.steered_tokens
        assert got.gates == want.gates
        logits = torch.stack(plain.logits[request_id])
        scale = float(logits.abs().max().clamp(min=1.0))
        differences = torch.stack(drafting.logits[request_id]) - logits
        assert float(differences.abs().max()) < TOLERANCE * scale


def test_a_draft_runs_in_one_step(loaded: LoadedModel) -> None:
    def num_steps(num_tokens: int) -> int:
        harness = EngineHarness(loaded, prompt_lookup_tokens=num_tokens)
        steps: list[None] = []
        harness.run(
            harness.request([3, 4, 5, 6], max_tokens=40, logit_bias={5: 100.0}),
            each_step=lambda: steps.append(None),
        )
        return len(steps)

    assert num_steps(0) == 40
    assert num_steps(8) <= 10


def test_what_a_refused_draft_wrote_is_not_read(loaded: LoadedModel) -> None:
    """Not even where it overflowed: a hidden NaN is still one in a product."""
    harness = EngineHarness(loaded, prompt_lookup_tokens=8)
    plain = EngineHarness(loaded).run(request_of(harness))[0].token_ids
    drafting = EngineHarness(loaded, prompt_lookup_tokens=8)
    scheduler, update = drafting.scheduler, drafting.scheduler.update
    num_refused = 0

    def spoil(part: Any, num_kept: int | None = None) -> None:
        nonlocal num_refused
        update(part, num_kept)
        for position in range(part.request.num_computed_tokens, part.stop):
            num_refused += 1
            size = loaded.info.block_size
            block, offset = part.request.block_table[position // size], position % size
            for cache in loaded.attention.caches:
                cache.keys[:, block, offset] = torch.nan
                cache.values[:, block, offset] = torch.nan

    scheduler.update = spoil
    assert drafting.run(request_of(drafting))[0].token_ids == plain
    assert num_refused > 0


def request_of(harness: EngineHarness) -> GenerationRequest:
    return harness.request([3, 4, 5, 6, 7, 8] * 3, max_tokens=40, temperature=1.0, top_k=2, seed=1)


def test_regions_penalties_and_undecided_gates_are_not_guessed_about() -> None:
    lookup = PromptLookup(4)
    repeated = [1, 2, 3, 4, 1, 2]

    def drafts(**changes: Any) -> tuple[int, ...]:
        request = make_request(repeated, **changes)
        request.output_token_ids = [3]
        return lookup.draft(request, 8)

    assert drafts() == (4, 1, 2, 3)
    assert drafts(sampling=SamplingParams(repetition_penalty=1.1)) == ()
    plan = ScopedPlan("p", Scope())
    assert drafts(plan=plan) == (4, 1, 2, 3)
    plan.uses_regions = True
    assert drafts(plan=plan) == ()
    assert drafts(max_tokens=3) == (4,)
    assert drafts(max_tokens=2) == ()


def test_drafts_grow_where_they_are_right_and_pause_where_they_are_wrong() -> None:
    lookup, request = PromptLookup(16), make_request([1, 2, 3] * 20, max_tokens=1000)
    request.output_token_ids = [1]
    lengths = []
    for _ in range(3):
        lengths.append(len(lookup.draft(request, 99)))
        lookup.learn(request, lengths[-1], lengths[-1])
    assert lengths == [4, 8, 16]
    tried = []
    for step in range(40):
        if drafts := lookup.draft(request, 99):
            tried.append(step)
            lookup.learn(request, len(drafts), 0)
    assert tried == [0, 2, 5, 10, 19, 36]
    lookup.forget(request)
    assert len(lookup.draft(request, 99)) == 4


def test_the_latest_precedent_is_taken() -> None:
    request = make_request([1, 2, 3, 7, 1, 2, 3, 8, 5, 1, 2], max_tokens=10)
    request.output_token_ids = [3]
    lookup = PromptLookup(2)
    assert lookup.draft(request, 9) == (8, 5)
    request.output_token_ids += [9, 1, 2, 3]
    assert lookup.draft(request, 9) == (9, 1)
