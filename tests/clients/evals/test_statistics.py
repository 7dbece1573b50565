"""Estimates against scipy, textbooks, and what an interval must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from coxswain_evals.statistics import Statistic, Values, difference, estimate


def flags(hits: int, n: int) -> Values:
    return {str(i): (float(i < hits), 1.0) for i in range(n)}


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (1, 1)])
def test_rates_have_wilsons_interval(hits: int, n: int) -> None:
    found = estimate(flags(hits, n), Statistic.RATE, seed=0)
    z = stats.norm.ppf(0.975)
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    assert found.value == hits / n
    assert found.low == pytest.approx(max(0.0, middle - half), abs=1e-9)
    assert found.high == pytest.approx(min(1.0, middle + half), abs=1e-9)


def test_means_are_bootstrapped_over_items() -> None:
    rng = np.random.default_rng(0)
    x = rng.exponential(size=200)
    found = estimate({str(i): (v, 1.0) for i, v in enumerate(x)}, Statistic.MEAN, seed=1)
    assert found.value == pytest.approx(x.mean())
    spread = 1.96 * x.std(ddof=1) / math.sqrt(200)
    assert found.low == pytest.approx(x.mean() - spread, rel=0.06)
    assert found.high == pytest.approx(x.mean() + spread, rel=0.06)
    again = estimate({str(i): (v, 1.0) for i, v in enumerate(x)}, Statistic.MEAN, seed=1)
    assert again == found


def test_perplexity_weighs_texts_by_their_tokens() -> None:
    values = {"long": (1.0, 30.0), "short": (4.0, 10.0)}
    found = estimate(values, Statistic.PERPLEXITY, seed=0)
    assert found.value == pytest.approx(math.exp((1.0 * 30 + 4.0 * 10) / 40))
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert math.exp(1.0) <= found.low <= found.value <= found.high <= math.exp(4.0) + 1e-9


def test_one_item_has_no_bootstrap_interval_and_none_has_no_value() -> None:
    one = estimate({"a": (2.0, 1.0)}, Statistic.MEAN, seed=0)
    assert (one.value, one.low, one.high) == (2.0, None, None)
    none = estimate({}, Statistic.RATE, seed=0, missing=3)
    assert (none.value, none.n, none.missing) == (None, 0, 3)


def test_mcnemar_counts_only_what_changed() -> None:
    first = {str(i): (float(i < 20), 1.0) for i in range(40)}
    second = {str(i): (float(i < 20 or 30 <= i < 38), 1.0) for i in range(40)}
    found = difference(first, second, Statistic.RATE, seed=0)
    assert found.value == pytest.approx(8 / 40)
    assert found.p_value == pytest.approx(2 * 0.5**8)
    assert found.low is not None
    assert found.low > 0
    same = difference(first, first, Statistic.RATE, seed=0)
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_pairs_are_kept_together() -> None:
    """Items differ far more from each other than the two cells do."""
    rng = np.random.default_rng(2)
    base = rng.normal(0, 10, 50)
    first = {str(i): (v, 1.0) for i, v in enumerate(base)}
    second = {
        str(i): (v + 0.5 + e, 1.0)
        for i, (v, e) in enumerate(zip(base, rng.normal(0, 0.1, 50), strict=True))
    }
    found = difference(first, second, Statistic.MEAN, seed=0)
    assert found.low is not None
    assert found.high is not None
    assert 0.4 < found.low < 0.5 < found.high < 0.6


def test_only_items_that_both_have_count() -> None:
    first, second = flags(2, 4), {"3": (1.0, 1.0), "9": (1.0, 1.0)}
    found = difference(first, second, Statistic.RATE, seed=0)
    assert (found.n, found.value) == (1, 1.0)
    assert difference(first, {}, Statistic.RATE, seed=0).value is None


def test_differences_of_perplexity_are_of_the_perplexities() -> None:
    first = {"a": (1.0, 5.0), "b": (2.0, 5.0), "c": (1.5, 5.0)}
    second = {item: (x + 1.0, w) for item, (x, w) in first.items()}
    found = difference(first, second, Statistic.PERPLEXITY, seed=0)
    assert found.value == pytest.approx(math.exp(2.5) - math.exp(1.5))
