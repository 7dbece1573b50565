"""Intervals: against closed forms and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lab.experiments.estimate import Estimate


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (100, 100, 0.9630, 1.0)],
)
def test_a_share_has_wilsons_interval(hits: int, n: int, low: float, high: float) -> None:
    found = Estimate.share(hits, n)
    assert found.value == hits / n
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.n == n


def test_a_mean_s_interval_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    found = Estimate.mean(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (found.value - half, found.value + half), abs=0.1 * half
    )


def test_perplexity_counts_tokens_and_not_texts() -> None:
    tokens = np.array([1.0, 9.0, 30.0])
    found = Estimate.perplexity(tokens * math.log(7.0), tokens)
    assert (found.value, found.low, found.high) == pytest.approx((7.0, 7.0, 7.0))
    uneven = Estimate.perplexity([0.0, 9.0], [9.0, 1.0])
    assert uneven.value == pytest.approx(math.exp(0.9))
    assert uneven.low < uneven.value < uneven.high


def test_the_same_numbers_give_the_same_interval_and_document() -> None:
    values = [0.1, 0.5, 0.7, 0.2]
    assert Estimate.mean(values) == Estimate.mean(values)
    document = Estimate.mean(values).to_dict()
    assert Estimate.from_dict(document).to_dict() == document
