from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.analysis import (
    Cliff,
    JudgeRule,
    Plateau,
    ThoughtSpan,
    measure_cliff,
    num_selected,
    rank_rollouts,
)
from steering.errors import InvalidFieldError

CURVE = [0.1, 0.1, 0.8, 0.9, 1.0, 0.2, 0.1, 0.3]  # prompt, thought of 4, template of 2
THOUGHT = ThoughtSpan(2, 6, 8)


def test_the_plateau_is_the_thought_without_its_end() -> None:
    found = measure_cliff(CURVE, THOUGHT, trim=1)
    assert found.plateau == pytest.approx(0.9)
    assert found.final == pytest.approx(0.3)
    assert found.cliff == pytest.approx(0.6)


def test_a_short_thought_keeps_its_first_token() -> None:
    assert measure_cliff(CURVE, THOUGHT, trim=50).plateau == pytest.approx(0.8)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=30), st.integers(0, 5))
def test_the_maximum_of_the_same_tokens_is_the_other_plateau(
    scores: list[float], trim: int
) -> None:
    thought = ThoughtSpan(1, len(scores) - 1, len(scores))
    last = max(thought.stop - trim, 2)
    mean = measure_cliff(scores, thought, trim=trim)
    highest = measure_cliff(scores, thought, trim=trim, plateau=Plateau.MAX)
    assert highest.plateau == max(scores[1:last])
    assert mean.plateau == pytest.approx(np.mean(scores[1:last]))
    assert highest.final == mean.final == scores[-1]
    assert highest.cliff == highest.plateau - highest.final


def test_a_flat_curve_has_no_cliff() -> None:
    found = measure_cliff(np.full(8, 0.5), THOUGHT)
    assert found == Cliff(0.5, 0.5, 0.0)


@pytest.mark.parametrize(
    "thought",
    [ThoughtSpan(2, 2, 8), ThoughtSpan(6, 2, 8), ThoughtSpan(2, 6, 7), ThoughtSpan(-1, 6, 8)],
)
def test_a_thought_that_is_not_there_is_refused(thought: ThoughtSpan) -> None:
    with pytest.raises(InvalidFieldError, match="thought"):
        measure_cliff(CURVE, thought)


def test_a_negative_trim_is_refused() -> None:
    with pytest.raises(InvalidFieldError, match="trim"):
        measure_cliff(CURVE, THOUGHT, trim=-1)


def rollout(plateau: float, final: float) -> Cliff:
    return Cliff(plateau, final, plateau - final)


ROLLOUTS = [rollout(0.9, 0.8), rollout(0.9, 0.1), rollout(0.2, 0.05), rollout(0.9, 0.1)]


def test_the_largest_cliff_comes_first_and_equal_ones_in_order() -> None:
    assert rank_rollouts(ROLLOUTS) == (1, 3, 2, 0)


def test_the_published_rule_looks_at_the_end_alone() -> None:
    """The third has no cliff to speak of, and yet it is first."""
    assert rank_rollouts(ROLLOUTS, JudgeRule.FINAL) == (2, 1, 3, 0)


def test_the_rules_agree_on_equal_plateaus() -> None:
    equal = [rollout(0.7, final) for final in (0.5, 0.1, 0.6, 0.3)]
    assert rank_rollouts(equal) == rank_rollouts(equal, JudgeRule.FINAL)


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(10, 0.25, 2), (10, 0.01, 1), (10, 1.0, 10), (0, 0.5, 0)]
)
def test_a_fraction_is_rounded_and_takes_at_least_one(
    count: int, fraction: float, expected: int
) -> None:
    assert num_selected(count, fraction) == expected


@pytest.mark.parametrize("fraction", [0.0, 1.5, -0.1])
def test_other_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(InvalidFieldError, match="fraction"):
        num_selected(10, fraction)
