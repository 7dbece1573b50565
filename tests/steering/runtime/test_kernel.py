"""The kernel against the sequential float64 oracle: mixed batches, every operation, any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steering.directions import DirectionKind
from steering.documents import Intervention, Operation, PositionContext
from steering.plan import Steer, compile_plan
from steering.runtime import SteeringRuntime, StepRow
from steering.sites import Site, SitePoint
from tests.steering.oracle import steer_tokens
from tests.steering.samples import make_direction, make_spec, random_steer

from .addressing import ADDRESSING, prefer

SPEC = make_spec()
CPU = torch.device("cpu")
SITE_OF = {Operation.SCALE_HEADS: Site.HEADS, Operation.RANK_ONE: Site.MLP_OUT}
MIXABLE = [op for op in Operation if op not in SITE_OF]


@pytest.fixture(params=ADDRESSING, ids=list(ADDRESSING))
def _addressing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, request.param)


def make_runtime(max_live_edits: int = 64) -> SteeringRuntime:
    return SteeringRuntime(SPEC.num_layers, dict.fromkeys(range(3), CPU), max_live_edits)


def run_batch(
    requests: list[list[Steer]],
    spans: list[tuple[int, int, int]],
    point: SitePoint,
    hidden: torch.Tensor,
) -> tuple[torch.Tensor, list[bool]]:
    runtime = make_runtime()
    rows = []
    for steers, (start, stop, prompt) in zip(requests, spans, strict=True):
        plan = compile_plan(steers, [], SPEC) if steers else None
        if plan is not None:
            runtime.acquire(plan)
        rows.append(StepRow(plan, start, stop, PositionContext(prompt)))
    outcome = runtime.begin_step(rows)
    return runtime.edit(point, hidden[None])[0], outcome.steered.tolist()


def expect_batch(
    requests: list[list[Steer]],
    spans: list[tuple[int, int, int]],
    point: SitePoint,
    hidden: torch.Tensor,
) -> torch.Tensor:
    pieces, offset = [], 0
    for steers, (start, stop, prompt) in zip(requests, spans, strict=True):
        rows = hidden[offset : offset + stop - start]
        pieces.append(steer_tokens(rows, steers, point, SPEC, start, PositionContext(prompt)))
        offset += stop - start
    return torch.cat(pieces)


def random_batch(
    rng: np.random.Generator, operations: list[Operation], site: Site
) -> tuple[list[list[Steer]], list[tuple[int, int, int]]]:
    requests, spans = [], []
    shared: list[list[Steer]] = []
    for _ in range(int(rng.integers(2, 7))):
        kind = rng.random()
        if kind < 0.25:
            steers: list[Steer] = []
        elif kind < 0.45 and shared:
            steers = shared[int(rng.integers(len(shared)))]
        else:
            picks = rng.choice(len(operations), size=int(rng.integers(1, 5)))
            steers = [random_steer(operations[i], site, (0, 1), SPEC, rng) for i in picks]
            if rng.random() < 0.3:
                steers.append(steers[0])  # the same intervention twice acts twice
            shared.append(steers)
        start = int(rng.integers(0, 6))
        requests.append(steers)
        spans.append((start, start + int(rng.integers(1, 7)), int(rng.integers(1, 8))))
    return requests, spans


@pytest.mark.usefixtures("_addressing")
@pytest.mark.parametrize("seed", range(40))
def test_mixed_batch_equals_sequential_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests, spans = random_batch(rng, MIXABLE, Site.RESID_POST)
    total = sum(stop - start for start, stop, _ in spans)
    hidden = torch.randn(total, SPEC.hidden_size, generator=torch.Generator().manual_seed(seed))
    point = SitePoint(int(rng.integers(2)), Site.RESID_POST)

    got, _ = run_batch(requests, spans, point, hidden)

    want = expect_batch(requests, spans, point, hidden)
    scale = want.abs().max().clamp(min=1.0)
    assert float((got.to(torch.float64) - want).abs().max() / scale) < 2e-5


@pytest.mark.usefixtures("_addressing")
@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_operation_in_each_dtype(operation: Operation, dtype: torch.dtype) -> None:
    site = SITE_OF.get(operation, Site.RESID_POST)
    rng = np.random.default_rng(7)
    steers = [random_steer(operation, site, (0, 1), SPEC, rng, scope={"tokens": "all"})]
    hidden = torch.randn(9, SPEC.width(site), generator=torch.Generator().manual_seed(3)).to(dtype)
    requests, spans = [[], steers, []], [(0, 3, 2), (0, 4, 2), (5, 7, 3)]
    point = SitePoint(1, site)

    got, steered = run_batch(requests, spans, point, hidden)

    want = expect_batch(requests, spans, point, hidden)
    # the only rounding allowed beyond float32's is that of the result itself
    tolerance = 2e-5 if dtype is torch.float32 else 0.5 * torch.finfo(dtype).eps + 1e-5
    error = (got.to(torch.float64) - want).abs() / want.abs().clamp(min=1.0)
    assert float(error.max()) <= tolerance
    assert steered == [False] * 3 + [True] * 4 + [False] * 2
    assert not torch.equal(got[3:7], hidden[3:7])


@pytest.mark.usefixtures("_addressing")
@pytest.mark.parametrize("num_requests", [1, 5])
@pytest.mark.parametrize("operation", MIXABLE)
def test_decoding_repeats_its_rows_and_gains_alone(operation: Operation, num_requests: int) -> None:
    """One token of each request a step: what is kept from the first step serves the others."""
    rng, point = np.random.default_rng(11), SitePoint(1, Site.RESID_POST)
    everywhere = {"tokens": "all"}
    requests = [
        [random_steer(operation, point.site, (0, 1), SPEC, rng, scope=everywhere)]
        for _ in range(num_requests)
    ]
    plans = [compile_plan(steers, [], SPEC) for steers in requests]
    runtime = make_runtime()
    for plan in plans:
        runtime.acquire(plan)
    for position in range(30, 33):
        hidden = torch.randn(num_requests, SPEC.hidden_size)
        context = PositionContext(4)
        runtime.begin_step([StepRow(plan, position, position + 1, context) for plan in plans])
        got = runtime.edit(point, hidden[None])[0].to(torch.float64)
        spans = [(position, position + 1, 4)] * num_requests
        want = expect_batch(requests, spans, point, hidden)
        assert float((got - want).abs().max() / want.abs().max().clamp(min=1.0)) < 2e-5


@pytest.mark.parametrize("operation", [Operation.ADD, Operation.ABLATE])
def test_a_single_stream_is_not_slowed_by_rows_that_others_left(operation: Operation) -> None:
    """Both operations share a lane's table, which keeps what was used before."""
    rng, point = np.random.default_rng(3), SitePoint(1, Site.RESID_POST)
    runtime, plans = make_runtime(), {}
    for each in (Operation.ADD, Operation.ABLATE):
        direction = make_direction(DirectionKind.VECTOR, point.site, (1,), SPEC, seed=5)
        fields = {"operation": each.value, "direction": direction.name, "layers": [1]}
        steers = [Steer(Intervention.from_dict(fields | {"scope": {"tokens": "all"}}), direction)]
        plans[each] = steers, compile_plan(steers, [], SPEC)
        runtime.acquire(plans[each][1])
    steers, plan = plans[operation]
    context = PositionContext(2)
    runtime.begin_step([StepRow(plan, 9, 10, context)])
    assert runtime._act_at is not None
    ((_, _, shortcut),) = runtime._act_at.by_hook[point]
    assert shortcut is not None
    hidden = torch.from_numpy(rng.normal(size=(1, SPEC.hidden_size))).float()
    want = steer_tokens(hidden, steers, point, SPEC, 9, context)
    torch.testing.assert_close(shortcut(hidden[None])[0].double(), want, atol=2e-5, rtol=2e-5)


@pytest.mark.usefixtures("_addressing")
@pytest.mark.parametrize("seed", range(10))
def test_unsteered_rows_are_untouched_to_the_bit(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    steers = [random_steer(op, Site.RESID_POST, (0, 1), SPEC, rng) for op in MIXABLE]
    hidden = torch.randn(12, SPEC.hidden_size).to(torch.bfloat16)
    got, _ = run_batch(
        [[], steers, []], [(0, 4, 4), (0, 4, 2), (3, 7, 4)], SitePoint(0, Site.RESID_POST), hidden
    )
    assert torch.equal(got[:4], hidden[:4])
    assert torch.equal(got[8:], hidden[8:])


@pytest.mark.usefixtures("_addressing")
def test_overflow_of_one_row_stays_in_that_row() -> None:
    rng = np.random.default_rng(5)
    ops = [Operation.ABLATE, Operation.TRANSPORT, Operation.ROTATE_TO]
    requests = [
        [random_steer(op, Site.RESID_POST, (0, 1), SPEC, rng, scope={"tokens": "all"})]
        for op in ops
    ]
    hidden = torch.randn(9, SPEC.hidden_size)
    hidden[4] = 3e38
    spans = [(0, 3, 3)] * 3
    point = SitePoint(0, Site.RESID_POST)
    got, _ = run_batch(requests, spans, point, hidden)
    clean = torch.cat((hidden[:4], torch.zeros(1, SPEC.hidden_size), hidden[5:]))
    want, _ = run_batch(requests, spans, point, clean)
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    torch.testing.assert_close(got[others], want[others])


def test_order_of_interventions_matters_and_is_kept() -> None:
    rng = np.random.default_rng(11)
    add = random_steer(Operation.ADD, Site.RESID_POST, (0,), SPEC, rng, scope={"tokens": "all"})
    ablate = random_steer(
        Operation.ABLATE, Site.RESID_POST, (0,), SPEC, rng, scope={"tokens": "all"}
    )
    hidden, point = torch.randn(6, SPEC.hidden_size), SitePoint(0, Site.RESID_POST)
    requests, spans = [[add, ablate], [ablate, add]], [(0, 3, 3), (0, 3, 3)]
    hidden[3:] = hidden[:3]
    got, _ = run_batch(requests, spans, point, hidden)
    want = expect_batch(requests, spans, point, hidden)
    torch.testing.assert_close(got.to(torch.float64), want, rtol=1e-5, atol=1e-5)
    assert float((want[:3] - want[3:]).abs().max()) > 1e-2


def test_resid_pre_is_edited_after_resid_post_of_the_layer_before() -> None:
    rng = np.random.default_rng(12)
    pre = random_steer(Operation.ABLATE, Site.RESID_PRE, (1,), SPEC, rng, scope={"tokens": "all"})
    post = random_steer(Operation.ADD, Site.RESID_POST, (0,), SPEC, rng, scope={"tokens": "all"})
    hidden, context = torch.randn(3, SPEC.hidden_size), PositionContext(3)
    got, _ = run_batch([[pre, post]], [(0, 3, 3)], SitePoint(0, Site.RESID_POST), hidden)
    mid = steer_tokens(hidden, [post], SitePoint(0, Site.RESID_POST), SPEC, 0, context)
    want = steer_tokens(mid, [pre], SitePoint(1, Site.RESID_PRE), SPEC, 0, context)
    torch.testing.assert_close(got.to(torch.float64), want, rtol=1e-5, atol=1e-5)


def test_zero_activation_survives_norm_restoring() -> None:
    rng = np.random.default_rng(13)
    steer = random_steer(
        Operation.SCALE_HEADS, Site.HEADS, (0,), SPEC, rng, scope={"tokens": "all"}
    )
    got, _ = run_batch([[steer]], [(0, 2, 2)], SitePoint(0, Site.HEADS), torch.zeros(2, 16))
    assert torch.equal(got, torch.zeros(2, 16))
