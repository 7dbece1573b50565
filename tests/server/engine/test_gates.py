"""Gates in the engine: decided once, whatever chunks, preemption, cache and neighbours do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from server.engine.gate_latch import GateLatch
from server.engine.loading import LoadedModel
from server.engine.outputs import GateState, SteeredTokens
from server.engine.request import GenerationRequest
from server.engine.scheduler import ScheduledRequest, Scheduler
from server.engine.scheduler.scheduler_output import StepBuilder
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import Site, SitePoint
from tests.models import tiny_model

from .harness import EngineHarness, RecordingSink, bare_logits, load_tiny
from .reference import reference, reference_logits

PROMPT = list(range(40, 60))  # five full blocks
LATE = {"tokens": ["last_prompt", "generated"]}
OPEN, CLOSED = -100.0, 100.0


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny("llama", tmp_path_factory.mktemp("llama"))


def direction(name: str, layer: int, seed: int, size: float = 1.0) -> Direction:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(seed)) * size
    return Direction(name, DirectionKind.VECTOR, Site.RESID_POST, (layer,), {"vector": vector})


def steer(
    threshold: float, *, per: str = "request", layer: int = 2, push: int = 1, **gate: Any
) -> Steer:
    """Pushes after the first layer where what is read after `layer` is above the threshold."""
    document = {"per": per, "direction": "read", "threshold": threshold, "layer": layer, **gate}
    intervention = {"operation": "add", "direction": "push", "scope": LATE, "gate": document}
    return Steer(
        Intervention.from_dict(intervention),
        direction("push", 0, push, 3.0),
        gate_direction=direction("read", layer, 7),
    )


def plan_of(loaded: LoadedModel, *steers: Steer) -> SteeringPlan:
    return compile_plan(steers, [], loaded.spec)


def bare(loaded: LoadedModel) -> torch.nn.Module:
    return tiny_model(loaded.layout.family)


def check(
    harness: EngineHarness, request: GenerationRequest, sink: RecordingSink, steers: list[Steer]
) -> tuple[GateState | None, ...]:
    """The logits of every sampled token are the reference's; returns the gates' states."""
    got = torch.stack(harness.logits[request.request_id])
    known = [*request.prompt_token_ids, *sink.token_ids][:-1]
    num_prompt = len(request.prompt_token_ids)
    found = reference(bare(harness.loaded), harness.loaded.spec, known, num_prompt, steers)
    want = found.logits[num_prompt - 1 :]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))
    return sink.outputs[-1].gates


@pytest.mark.parametrize("token", ["last", "mean"])
def test_any_chunks_decide_alike(loaded: LoadedModel, token: str) -> None:
    prompt, steers = PROMPT[:7], [steer(OPEN, token=token), steer(CLOSED, token=token, push=2)]
    plan, scores = plan_of(loaded, *steers), []
    for budget in range(1, 9):
        harness = EngineHarness(loaded, max_num_batched_tokens=budget)
        request = harness.request(prompt, plan, max_tokens=3)
        sink = harness.run(request)[0]
        first, second = check(harness, request, sink, steers)
        assert first is not None
        assert second is not None
        assert (first.is_open, second.is_open) == (True, False)
        scores.append(first.score)
    torch.testing.assert_close(
        torch.tensor(scores), torch.full((8,), scores[0]), rtol=1e-5, atol=1e-5
    )


def test_left_out_second_run_would_show(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: sampling from the run in which the gate was decided misses the first token."""
    take, update = StepBuilder.take, Scheduler.update

    def take_and_sample(builder: StepBuilder, request: Any, share: float = 1.0) -> None:
        take(builder, request, share)
        part = builder.scheduled[request.request_id]
        builder.scheduled[request.request_id] = replace(
            part, is_last_chunk=part.is_last_chunk or part.latches
        )

    def update_as_computed(scheduler: Scheduler, part: ScheduledRequest, *kept: int) -> None:
        update(scheduler, replace(part, latches=False), *kept)

    steers = [steer(OPEN)]
    for leaves_out in (False, True):
        if leaves_out:
            monkeypatch.setattr(StepBuilder, "take", take_and_sample)
            monkeypatch.setattr(Scheduler, "update", update_as_computed)
        harness = EngineHarness(loaded)
        request = harness.request(PROMPT, plan_of(loaded, *steers), max_tokens=1)
        sink = harness.run(request)[0]
        assert sink.outputs[-1].gates[0].is_open
        want = reference_logits(bare(loaded), loaded.spec, PROMPT, len(PROMPT), steers)[-1]
        error = float((harness.logits[request.request_id][0] - want).abs().max())
        assert (error > 1e-2) is leaves_out


@pytest.mark.parametrize("token", ["last", "mean"])
def test_preemption_at_any_step_changes_nothing(
    loaded: LoadedModel, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steers = [steer(OPEN, token=token), steer(0.1, per="token", layer=0)]
    plan, decide = plan_of(loaded, *steers), GateLatch.decide
    decided: list[GateLatch] = []
    monkeypatch.setattr(GateLatch, "decide", lambda latch: decided.append(latch) or decide(latch))
    reports = set()
    for preempted_at in range(12):
        harness = EngineHarness(loaded, max_num_batched_tokens=3)
        steps = iter(range(100))

        def preempt(
            steps: Any = steps, harness: EngineHarness = harness, at: int = preempted_at
        ) -> None:
            running = [r for r in harness.scheduler.requests() if r.block_table]
            if next(steps) == at and running:
                harness.scheduler.preempt(running[0])

        request = harness.request(PROMPT[:9], plan, max_tokens=6)
        sink = harness.run(request, each_step=preempt)[0]
        states = check(harness, request, sink, steers)
        reports.add((states[0].is_open, states[1], sink.outputs[-1].steered_tokens))
    assert len(reports) == 1
    assert len(decided) == 12, "once for each request: a decision outlives preemption"


def cached_after(harness: EngineHarness, request: GenerationRequest) -> int:
    return harness.run(request)[0].outputs[-1].num_cached_tokens


@pytest.mark.parametrize(("token", "expected"), [("last", 16), ("mean", 0)])
def test_a_gate_that_reads_the_whole_prompt_does_not_read_the_cache(
    loaded: LoadedModel, token: str, expected: int
) -> None:
    harness, steers = EngineHarness(loaded), [steer(OPEN, token=token)]
    plan = plan_of(loaded, *steers)
    harness.run(harness.request(PROMPT, plan))
    again = harness.request(PROMPT, plan)
    sink = harness.run(again)[0]
    assert sink.outputs[-1].num_cached_tokens == expected
    assert check(harness, again, sink, steers)[0].is_open


@pytest.mark.parametrize("threshold", [OPEN, CLOSED])
def test_what_a_gate_decided_is_part_of_what_is_shared(
    loaded: LoadedModel, threshold: float
) -> None:
    """The block of the last prompt token is plain exactly if the gate was closed."""
    harness, steers = EngineHarness(loaded), [steer(threshold)]
    harness.run(harness.request(PROMPT, plan_of(loaded, *steers), max_tokens=2))
    turn = [*PROMPT, 7, 8]
    plain = harness.request(turn, None, max_tokens=1)
    assert cached_after(harness, plain) == (16 if threshold == OPEN else 20)
    want = bare_logits(bare(loaded), turn)[-1]
    got = harness.logits[plain.request_id][0]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))


def test_undecided_blocks_are_not_taken_for_plain_ones(loaded: LoadedModel) -> None:
    """Before the decision only what ends before the last prompt token is known to be plain."""
    harness, steers = EngineHarness(loaded), [steer(OPEN)]
    harness.run(harness.request(PROMPT, None, max_tokens=1))
    request = harness.request(PROMPT, plan_of(loaded, *steers), max_tokens=1)
    request = replace(request, steering_prompt_tokens=11)
    sink = harness.run(request)[0]
    assert sink.outputs[-1].num_cached_tokens == 8
    want = reference_logits(bare(loaded), loaded.spec, PROMPT, 11, steers)[-1]
    got = harness.logits[request.request_id][0]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))


def test_token_gates_on_the_prompt_are_counted_so_they_are_computed(loaded: LoadedModel) -> None:
    """The cache does not know where gates were open; those on generated tokens may use it."""
    harness, late = EngineHarness(loaded), steer(0.1, per="token", layer=0)
    whole = Intervention.from_dict(late.intervention.to_dict() | {"scope": {"tokens": "all"}})
    for steers, cached in (([late], 16), ([replace(late, intervention=whole)], 0)):
        reports = set()
        for _ in range(2):
            request = harness.request(PROMPT, plan_of(loaded, *steers))
            sink = harness.run(request)[0]
            reports.add((check(harness, request, sink, steers), sink.outputs[-1].steered_tokens))
        assert len(reports) == 1
        assert sink.outputs[-1].num_cached_tokens == cached


def test_gates_of_one_request_do_not_see_each_other(loaded: LoadedModel) -> None:
    """Both read the run in which neither acts, although one pushes before the other reads."""
    scores = []
    for steers in ([steer(OPEN), steer(CLOSED, layer=3)], [steer(CLOSED, layer=3)]):
        harness = EngineHarness(loaded)
        request = harness.request(PROMPT, plan_of(loaded, *steers))
        states = check(harness, request, harness.run(request)[0], steers)
        scores.append(states[-1].score)
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_interventions_may_share_a_gate(loaded: LoadedModel) -> None:
    harness, steers = EngineHarness(loaded), [steer(OPEN), steer(OPEN, push=2)]
    plan = plan_of(loaded, *steers)
    assert len(plan.latches) == 1
    request = harness.request(PROMPT, plan)
    first, second = check(harness, request, harness.run(request)[0], steers)
    assert first == second


def test_a_closed_gate_leaves_the_answer_and_says_so(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded)
    gated = harness.request(PROMPT, plan_of(loaded, steer(CLOSED)))
    plain = harness.request(PROMPT, None)
    closed, unsteered = harness.run(gated, plain)
    assert closed.token_ids == unsteered.token_ids
    last = closed.outputs[-1]
    assert last.steered_tokens == SteeredTokens(0, 0)
    assert last.gates[0].is_open is False
    assert last.gates[0].score < CLOSED


@pytest.mark.parametrize("budget", [2, 5, 32])
@pytest.mark.parametrize("token", ["last", "mean"])
def test_scored_text_is_gated_where_its_prompt_ends(
    loaded: LoadedModel, budget: int, token: str
) -> None:
    """With a boundary within the prompt, the tokens after it wait for the decision."""
    harness = EngineHarness(loaded, max_num_batched_tokens=budget)
    steers = [steer(OPEN, token=token)]
    request = harness.request(PROMPT, plan_of(loaded, *steers), max_tokens=2, prompt_logprobs=0)
    request = replace(request, steering_prompt_tokens=11)
    sink = harness.run(request)[0]
    known = [*PROMPT, *sink.token_ids][:-1]
    want = reference_logits(bare(loaded), loaded.spec, known, 11, steers)
    got = torch.stack(harness.logits[request.request_id])
    torch.testing.assert_close(got, want[len(PROMPT) - 1 :], rtol=0, atol=1e-3)
    logprobs = want.log_softmax(dim=-1)
    entries = sink.outputs[0].prompt_logprobs or ()
    for position, entry in enumerate(entries[1:], 1):
        expected = float(logprobs[position - 1, PROMPT[position]])
        assert entry is not None
        assert entry.chosen.logprob == pytest.approx(expected, abs=1e-3)
    assert sink.outputs[-1].steered_tokens == SteeredTokens(1, len(known) - 11)


def test_activations_are_captured_under_the_decision(loaded: LoadedModel) -> None:
    point, captured = SitePoint(1, Site.RESID_POST), []
    always = replace(steer(OPEN), gate_direction=None)
    ungated = replace(always, intervention=always.intervention.model_copy(update={"gate": None}))
    for one in (steer(OPEN), ungated, steer(CLOSED)):
        harness = EngineHarness(loaded)
        request = harness.request(PROMPT, plan_of(loaded, one), max_tokens=0)
        request = replace(request, capture_points=(point,), capture_positions=(0, len(PROMPT)))
        captured.append(harness.run(request)[0].activations[point])
    torch.testing.assert_close(captured[0], captured[1], rtol=1e-4, atol=1e-4)
    assert float((captured[0] - captured[2])[-1].abs().max()) > 1.0


@pytest.mark.parametrize("sampling", [{}, {"prompt_logprobs": 0}], ids=str)
def test_a_score_that_is_not_finite_fails_its_request_alone(
    loaded: LoadedModel, sampling: dict[str, Any]
) -> None:
    eye = {f"basis.{layer}": torch.eye(32) * 1e5 for layer in range(4)}
    eye |= {f"map.{layer}": torch.eye(32) * 1e5 for layer in range(4)}
    eye |= {f"offset.{layer}": torch.zeros(32) for layer in range(4)}
    eye |= {f"shift.{layer}": torch.zeros(32) for layer in range(4)}
    explode = Steer(
        Intervention.from_dict({"operation": "transport", "direction": "explode"}),
        Direction("explode", DirectionKind.TRANSPORT, Site.RESID_POST, (0, 1, 2, 3), eye),
    )
    harness = EngineHarness(loaded)
    plan = plan_of(loaded, explode, steer(OPEN, layer=3))
    failing = harness.request(PROMPT, plan, **sampling)
    failed, plain = harness.run(failing, harness.request(PROMPT, None))
    assert [error.code for error in failed.errors] == ["engine_nonfinite"]
    assert len(plain.token_ids) == 6


def test_a_gate_without_a_prompt_is_refused(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded)
    request = replace(
        harness.request(PROMPT, plan_of(loaded, steer(OPEN))), steering_prompt_tokens=0
    )
    sink = harness.run(request)[0]
    assert [error.code for error in sink.errors] == ["request_rejected"]
