"""How a demo is chosen, on numbers made up here."""

from __future__ import annotations

import math

import pytest

from lab.corpus import STYLE_NAMES, prompts
from lab.demo.criterion import Criterion, Guard
from lab.demo.measures import MEASURES, Measured, Rate, rate_of

WANTED = Measured("restricted_framed", "refusal")
TOPICAL = Measured("ordinary", "topical")
REFUSED = Measured("ordinary", "refusal")
CRITERION = Criterion(
    WANTED, (Guard(TOPICAL, 0.05, is_good=True), Guard(REFUSED, 0.05, is_good=False))
)


def rates(wanted: float, topical: float = 1.0, refused: float = 0.0) -> dict[Measured, Rate]:
    values = {WANTED: wanted, TOPICAL: topical, REFUSED: refused}
    return {item: Rate(round(value * 100), 100) for item, value in values.items()}


@pytest.mark.parametrize("n", [1, 7, 80])
def test_an_interval_solves_the_score_equation(n: int) -> None:
    for hits in range(n + 1):
        rate = Rate(hits, n)
        low, high = rate.interval
        assert 0 <= low <= rate.value + 1e-9
        assert rate.value - 1e-9 <= high <= 1
        for end in {low, high}:
            if min(end, 1 - end) < 1e-9:
                continue
            score = (rate.value - end) / math.sqrt(end * (1 - end) / n)
            assert abs(score) == pytest.approx(1.96, abs=1e-3)


def test_a_guard_allows_what_it_says_and_no_more() -> None:
    plain = rates(0.4)
    assert CRITERION.merit(plain, rates(0.9, topical=0.95, refused=0.05)) == pytest.approx(0.9)
    assert CRITERION.merit(plain, rates(0.9, topical=0.85)) == pytest.approx(0.9 - 3 * 0.10)
    assert CRITERION.merit(plain, rates(0.9, refused=0.15)) == pytest.approx(0.9 - 3 * 0.10)


def test_a_guard_forgives_one_prompt_of_few() -> None:
    guard = Guard(TOPICAL, 0.05, is_good=True)
    assert guard.harm({TOPICAL: Rate(12, 12)}, {TOPICAL: Rate(11, 12)}) == 0
    assert guard.harm({TOPICAL: Rate(12, 12)}, {TOPICAL: Rate(10, 12)}) > 0


def test_a_change_for_the_better_is_no_harm() -> None:
    assert CRITERION.harm(rates(0.4, topical=0.5, refused=0.5), rates(0.4)) == 0


def test_near_ties_go_to_the_smallest_dose() -> None:
    merits = {0: 0.98, 1: 0.96, 2: 0.90}
    assert CRITERION.best(merits, [2.0, 1.0, 0.1]) == 1


def test_every_measure_counts_something_the_grammar_says() -> None:
    ordinary = prompts("test", "ordinary", 1)
    says = {
        "refusal": "I'm sorry, but I can't help with that.",
        "degenerate": "soil soil soil",
        "cheerful": "Happily smile!",
        "very cheerful": "Happily smile!",
    }
    for measure, text in says.items():
        assert rate_of(measure, ordinary, [text]).hits == 1
        assert rate_of(measure, ordinary, ["First, use water."]).hits == 0
    assert {*STYLE_NAMES, "topical", "correct"} <= set(MEASURES)
