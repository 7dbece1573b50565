"""Token gates in the kernel against the float64 oracle: mixed batches, any measure, any point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from steering.directions import Direction, DirectionKind
from steering.documents import Intervention, Operation, Per, PositionContext
from steering.plan import Steer, compile_plan
from steering.runtime import SteeringRuntime, StepOutcome, StepRow
from steering.sites import Site, SitePoint
from tests.steering.gate_oracle import GateOracle
from tests.steering.gate_samples import with_token_gate
from tests.steering.oracle_runtime import OracleRuntime
from tests.steering.samples import make_spec, random_steer

from .addressing import ADDRESSING, prefer

SPEC = make_spec(num_layers=2)
CPU = torch.device("cpu")
MIXABLE = [op for op in Operation if op not in (Operation.SCALE_HEADS, Operation.RANK_ONE)]
HOOKED = [
    SitePoint(0, Site.EMBED),
    SitePoint(0, Site.RESID_PRE),
    *(SitePoint(i, s) for i in range(2) for s in list(Site)[2:9]),
    SitePoint(1, Site.FINAL),
]
"""Every point with a hook of its own, in the order of a forward."""


@pytest.fixture(params=ADDRESSING, ids=list(ADDRESSING))
def _addressing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, request.param)


Spans = list[tuple[int, int, int]]


class Batch:
    """Requests in one step, each beside its own oracle."""

    def __init__(self, requests: list[list[Steer]], spans: Spans) -> None:
        self.requests, self.spans = requests, spans
        self.plans = [compile_plan(steers, [], SPEC) if steers else None for steers in requests]
        self.gates = [GateOracle(start) for start, _, _ in spans]
        self.oracles = [
            OracleRuntime(SPEC, PositionContext(prompt), steers, gates, start)
            for steers, gates, (start, _, prompt) in zip(requests, self.gates, spans, strict=True)
        ]
        self.runtime = SteeringRuntime(2, dict.fromkeys(range(2), CPU), 64)
        for plan in self.plans:
            if plan is not None:
                self.runtime.acquire(plan)

    def run(self, seed: int) -> tuple[list[torch.Tensor], list[torch.Tensor], StepOutcome]:
        """Fresh activations through every point: what came out, and what should have."""
        generator = torch.Generator().manual_seed(seed)
        rows = [
            StepRow(plan, start, stop, PositionContext(prompt))
            for plan, (start, stop, prompt) in zip(self.plans, self.spans, strict=True)
        ]
        outcome = self.runtime.begin_step(rows)
        counts = [stop - start for start, stop, _ in self.spans]
        got, want = [], []
        for point in HOOKED:
            hidden = torch.randn(sum(counts), SPEC.width(point.site), generator=generator)
            got.append(self.runtime.edit(point, hidden[None])[0].to(torch.float64))
            pieces = hidden.to(torch.float64).split(counts)
            edited = [o.edit(point, p[None])[0] for o, p in zip(self.oracles, pieces, strict=True)]
            want.append(torch.cat(edited))
        self.runtime.end_step()
        return got, want, outcome

    @property
    def margin(self) -> float:
        return min(gates.margin for gates in self.gates)

    def check_outcome(self, outcome: StepOutcome) -> None:
        """Counts of open tokens, and of steered ones, are those of the oracle."""
        offset = 0
        parts = zip(self.requests, self.plans, self.gates, self.spans, strict=True)
        for steers, plan, gates, (start, stop, prompt) in parts:
            end = offset + stop - start
            for steer, opened in zip(
                steers, outcome.opened(plan, offset, end) if plan else (), strict=True
            ):
                found = None if opened is None else set(start + np.flatnonzero(opened))
                is_gated = steer.intervention.gate is not None
                assert found == (gates.opened.get(steer, set()) if is_gated else None)
            steered = set(start + np.flatnonzero(outcome.steered[offset:end]))
            assert steered == gates.steered(steers, start, stop, PositionContext(prompt))
            offset = end


def random_batch(rng: np.random.Generator) -> Batch:
    requests: list[list[Steer]] = []
    spans: Spans = []
    for _ in range(int(rng.integers(2, 7))):
        steers: list[Steer] = []
        if rng.random() < 0.25 and any(requests):
            steers = requests[int(rng.integers(len(requests)))]
        elif rng.random() < 0.8:
            site = list(Site)[int(rng.integers(1, 9))]
            for _ in range(int(rng.integers(1, 5))):
                steer = random_steer(MIXABLE[int(rng.integers(8))], site, (0, 1), SPEC, rng)
                steers.append(with_token_gate(steer, SPEC, rng) if rng.random() < 0.6 else steer)
        start = int(rng.integers(0, 6))
        requests.append(steers)
        spans.append((start, start + int(rng.integers(1, 7)), int(rng.integers(1, 8))))
    return Batch(requests, spans)


@pytest.mark.usefixtures("_addressing")
@pytest.mark.parametrize("seed", range(40))
def test_gated_batch_equals_sequential_float64(seed: int) -> None:
    batch = random_batch(np.random.default_rng(seed))
    got, want, outcome = batch.run(seed)
    assert batch.margin > 1e-6, "rounding decides; take another seed"
    for one, other in zip(got, want, strict=True):
        scale = other.abs().max().clamp(min=1.0)
        assert float((one - other).abs().max() / scale) < 2e-5
    batch.check_outcome(outcome)


def gated_steer(operation: str, gate: dict[str, Any], **fields: Any) -> Steer:
    """Acts at resid_post of layer 0 with a plane; its gate reads the plane's first axis."""
    basis = torch.eye(2, SPEC.hidden_size)
    plane = Direction("plane", DirectionKind.PLANE, Site.RESID_POST, (0,), {"basis": basis})
    vector = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (0,), {"vector": basis[1]})
    document = {"per": "token", "direction": "plane", "threshold": 0.0, **gate}
    return Steer(
        Intervention.from_dict(
            {"operation": operation, "direction": "d", "gate": document, **fields}
        ),
        plane if operation.startswith("rotate") else vector,
        gate_direction=plane,
    )


def edit_at(steers: list[Steer], hidden: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
    batch = Batch([steers], [(0, len(hidden), 1)])
    row = StepRow(batch.plans[0], 0, len(hidden), PositionContext(1))
    outcome = batch.runtime.begin_step([row])
    edited = batch.runtime.edit(SitePoint(0, Site.RESID_POST), hidden[None])[0]
    return edited, outcome.steered.tolist()


def test_adaptive_angular_steering_turns_what_lies_along_the_first_axis_alone() -> None:
    hidden = torch.randn(8, SPEC.hidden_size, generator=torch.Generator().manual_seed(1))
    steer = gated_steer("rotate_to", {}, angle=90.0)
    edited, steered = edit_at([steer], hidden)
    along = hidden[:, 0] > 0
    assert steered == along.tolist()
    assert torch.equal(edited[~along], hidden[~along])
    torch.testing.assert_close(edited[along, 0], torch.zeros(int(along.sum())), rtol=0, atol=1e-6)
    length = hidden[along, :2].norm(dim=1)
    torch.testing.assert_close(edited[along, 1], length)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("restore_norm", [False, True])
def test_a_closed_gate_leaves_every_bit(dtype: torch.dtype, restore_norm: bool) -> None:
    hidden = torch.randn(6, SPEC.hidden_size, generator=torch.Generator().manual_seed(2)).to(dtype)
    steer = gated_steer("add", {"threshold": 1e6}, restore_norm=restore_norm)
    edited, steered = edit_at([steer], hidden)
    assert torch.equal(edited, hidden)
    assert steered == [False] * 6


def test_above_and_below_share_every_token_between_them() -> None:
    """The names say where the gate is open, unlike the comparator of CAST's code."""
    hidden = torch.tensor([[2.0], [0.5], [-3.0]]) * torch.eye(1, SPEC.hidden_size)
    above = gated_steer("add", {"opens": "above", "threshold": 0.5})
    below = gated_steer("add", {"opens": "below", "threshold": 0.5})
    assert edit_at([above], hidden)[1] == [True, False, False]
    assert edit_at([below], hidden)[1] == [False, False, True]


def test_a_gate_at_its_own_point_reads_what_earlier_interventions_left() -> None:
    hidden = torch.zeros(1, SPEC.hidden_size)
    push = gated_steer("add", {"opens": "below", "threshold": 1.0})
    basis = torch.eye(2, SPEC.hidden_size)
    first = Direction("one", DirectionKind.VECTOR, Site.RESID_POST, (0,), {"vector": basis[0]})
    lift = Steer(Intervention.from_dict({"operation": "add", "direction": "one"}), first, 2.0)
    assert edit_at([push, lift], hidden)[0][0, 1] == 1.0
    assert edit_at([lift, push], hidden)[0][0, 1] == 0.0


def test_overflow_of_one_row_stays_in_that_row() -> None:
    steer = gated_steer("add", {"steepness": 2.0})
    batch = Batch([[steer], [], [gated_steer("ablate", {"opens": "below"})]], [(0, 2, 2)] * 3)
    rows = [StepRow(plan, 0, 2, PositionContext(2)) for plan in batch.plans]
    hidden = torch.randn(6, SPEC.hidden_size, generator=torch.Generator().manual_seed(3))
    clean = hidden.clone()
    hidden[2] = float("inf")
    point = SitePoint(0, Site.RESID_POST)
    results = []
    for given in (hidden, clean):
        batch.runtime.begin_step(rows)
        results.append(batch.runtime.edit(point, given[None])[0])
    others = [0, 1, 3, 4, 5]
    assert torch.equal(results[0][others], results[1][others])


def test_gates_are_per_token_or_per_request() -> None:
    assert compile_plan([gated_steer("add", {})], [], SPEC).interventions[0].has_token_gate
    assert {per.value for per in Per} == {"request", "token"}
