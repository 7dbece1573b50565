from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.documents import (
    CONSTANT,
    MAX_RAMP,
    DecaySchedule,
    RampSchedule,
    Schedule,
    ScheduleKind,
)
from steering.errors import SteeringError

FACTORS = st.floats(-1e300, 1e300)
SCHEDULES = st.one_of(
    st.just(CONSTANT),
    st.builds(RampSchedule, start=FACTORS, end=FACTORS, tokens=st.integers(1, 99)),
    st.builds(
        DecaySchedule,
        factor=st.floats(0, 1, exclude_min=True, allow_subnormal=False),
    ),
)
POSITIONS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)).map(sorted)


def expected(schedule: Schedule, position: int, num_prompt_tokens: int) -> float:
    """The factor at one position, as the documentation words it."""
    t = max(0, position - num_prompt_tokens + 1)
    match schedule.kind:
        case ScheduleKind.CONSTANT:
            return 1.0
        case ScheduleKind.RAMP:
            share = min(t / schedule.tokens, 1.0)
            return schedule.start * (1 - share) + schedule.end * share
        case ScheduleKind.DECAY:
            return math.pow(schedule.factor, t)


@settings(deadline=None)
@given(SCHEDULES, POSITIONS, st.integers(1, 60))
def test_factors_are_the_formula_wherever_they_are_cut(
    schedule: Schedule, cuts: list[int], num_prompt_tokens: int
) -> None:
    start, middle, stop = cuts
    whole = schedule.factors(start, stop, num_prompt_tokens)
    parts = [
        schedule.factors(a, b, num_prompt_tokens) for a, b in ((start, middle), (middle, stop))
    ]
    assert whole.dtype == np.float64
    assert np.array_equal(whole, np.concatenate(parts))
    values = [expected(schedule, p, num_prompt_tokens) for p in range(start, stop)]
    np.testing.assert_allclose(whole, values, rtol=1e-12)
    assert np.all(np.abs(whole) <= schedule.peak * (1 + 1e-12))


def test_prompt_tokens_count_nothing_and_the_first_generated_one() -> None:
    ramp = Schedule.from_dict({"kind": "ramp", "start": 0, "end": 4, "tokens": 4})
    assert ramp.factors(0, 10, 3).tolist() == [0, 0, 0, 1, 2, 3, 4, 4, 4, 4]
    decay = Schedule.from_dict({"kind": "decay", "factor": 0.5})
    assert decay.factors(0, 5, 3).tolist() == [1, 1, 1, 0.5, 0.25]


def test_ramps_between_huge_factors_stay_finite() -> None:
    ramp = Schedule.from_dict({"kind": "ramp", "start": -1.7e308, "end": 1.7e308, "tokens": 2})
    assert ramp.factors(0, 3, 1).tolist() == [-1.7e308, 0.0, 1.7e308]
    assert ramp.peak == 1.7e308


@settings(deadline=None)
@given(SCHEDULES)
def test_documents_round_trip_through_json(schedule: Schedule) -> None:
    document = schedule.to_dict()
    assert type(document["kind"]) is str
    assert Schedule.from_dict(json.loads(json.dumps(document))) == schedule


def test_an_empty_document_is_constant() -> None:
    assert Schedule.from_dict({}) == CONSTANT
    assert CONSTANT.to_dict() == {"kind": "constant"}


@pytest.mark.parametrize(
    ("document", "param", "message"),
    [
        ({"kind": "linear"}, "kind", "'linear'; expected one of constant, ramp, decay"),
        ({"kind": None}, "kind", "None"),
        ({"kind": ["ramp"]}, "kind", "ramp"),
        ({"factor": 0.5}, "factor", "unknown field factor of a constant schedule"),
        ({"kind": "ramp", "factor": 0.5}, "factor", "expected end, kind, start, tokens"),
        ({"kind": "decay", "tokens": 2}, "tokens", "unknown field"),
        ({"kind": "decay", "factor": 0}, "factor", r"expected a number in \(0, 1\]"),
        ({"kind": "decay", "factor": 1.01}, "factor", "1.01"),
        ({"kind": "decay", "factor": "1"}, "factor", "expected a number"),
        ({"kind": "ramp", "start": math.nan}, "start", "not finite"),
        ({"kind": "ramp", "end": True}, "end", "True"),
        ({"kind": "ramp", "tokens": 0}, "tokens", f"0; expected an integer from 1 to {MAX_RAMP}"),
        ({"kind": "ramp", "tokens": 2.0}, "tokens", "2.0"),
        ({"kind": "ramp", "tokens": True}, "tokens", "True"),
        ({"kind": "ramp", "tokens": MAX_RAMP + 1}, "tokens", "integer from 1"),
        ({"kind": "ramp", "tokens": 10**400}, "tokens", "integer from 1"),
        ({"kind": "ramp", "tokens": None}, "tokens", "None"),
    ],
)
def test_bad_documents_name_the_field(document: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(SteeringError, match=message) as caught:
        Schedule.from_dict(document)
    assert caught.value.param == param
