"""What a step is prepared from: reused while nothing changes, and made anew when anything does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from steering.documents import CONSTANT, Operation, PositionContext, Schedule
from steering.plan import SteeringPlan, compile_plan
from steering.runtime import SteeringRuntime, StepRow, runtime
from steering.sites import Site
from tests.steering.samples import make_spec, random_steer

SPEC = make_spec()
PROMPT = 4


def make_plan(seed: int, schedule: Schedule = CONSTANT) -> SteeringPlan:
    rng, scope = np.random.default_rng(seed), {"tokens": "all"}
    steer = random_steer(Operation.ABLATE, Site.RESID_POST, (0,), SPEC, rng, scope=scope)
    intervention = steer.intervention.model_copy(update={"schedule": schedule})
    return compile_plan([replace(steer, intervention=intervention)], [], SPEC)


ONE, OTHER = make_plan(1), make_plan(2)
RAMP = make_plan(3, Schedule.from_dict({"kind": "ramp", "start": 0.5, "end": 1.0, "tokens": 8}))


def decoding(*plans: SteeringPlan | None, at: int = PROMPT) -> list[StepRow]:
    return [StepRow(plan, at, at + 1, PositionContext(PROMPT)) for plan in plans]


@pytest.fixture
def live() -> SteeringRuntime:
    made = SteeringRuntime(SPEC.num_layers, dict.fromkeys(range(3), torch.device("cpu")), 8)
    for plan in (ONE, OTHER, RAMP):
        made.acquire(plan)
    return made


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often gains were computed."""
    calls = []
    compute = runtime.gain_matrix
    monkeypatch.setattr(runtime, "gain_matrix", lambda *a: calls.append(1) or compute(*a))
    return lambda: len(calls)


def test_decoding_under_constant_gains_is_prepared_once(
    live: SteeringRuntime, count: Callable[[], int]
) -> None:
    for position in range(PROMPT, PROMPT + 5):
        steered = live.begin_step(decoding(ONE, None, OTHER, at=position)).steered
        assert steered.tolist() == [True, False, True]
    assert count() == 1


@pytest.mark.parametrize(
    "rows",
    [
        decoding(OTHER, ONE, None),
        decoding(ONE, OTHER),
        decoding(ONE, None, ONE),
        [StepRow(ONE, 0, 3, PositionContext(PROMPT)), *decoding(None)],
    ],
    ids=["order", "number", "plan", "prompt"],
)
def test_other_rows_are_prepared_anew(
    live: SteeringRuntime, rows: list[StepRow], count: Callable[[], int]
) -> None:
    live.begin_step(decoding(ONE, None, OTHER))
    steered = live.begin_step(rows).steered
    assert steered.tolist() == [
        row.plan is not None for row in rows for _ in range(row.start, row.stop)
    ]
    assert count() == 2


def test_gains_that_move_are_computed_in_every_step(
    live: SteeringRuntime, count: Callable[[], int]
) -> None:
    for position in range(PROMPT, PROMPT + 3):
        live.begin_step(decoding(ONE, RAMP, at=position))
    assert count() == 3


def test_repacked_tables_are_prepared_anew(live: SteeringRuntime, count: Callable[[], int]) -> None:
    live.begin_step(decoding(ONE))
    late = make_plan(4)
    live.acquire(late)
    live.begin_step(decoding(late))
    assert live.begin_step(decoding(ONE)).steered.tolist() == [True]
    assert count() == 3
