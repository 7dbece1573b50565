from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from steering.directions import Direction, DirectionKind
from steering.errors import FitError, InvalidFieldError
from steering.fit.fitters.probe import fit_probe

from .apply_direction import apply_direction
from .gaussians import FloatArray

WIDTH = 6


def sets(seed: int, *, num_positive: int = 60, num_negative: int = 60, width: int = WIDTH) -> Any:
    generator = np.random.default_rng(seed)
    scales = np.geomspace(0.1, 50, width)
    gap = np.r_[0.2, np.zeros(width - 2), 40.0]
    negative = generator.standard_normal((num_negative, width)) * scales + 7
    return generator.standard_normal((num_positive, width)) * scales + 7 + gap, negative


def fitted(positive: FloatArray, negative: FloatArray, **options: Any) -> Direction:
    return fit_probe(
        torch.from_numpy(positive), torch.from_numpy(negative), name="p", layer=3, **options
    )


def scores(direction: Direction, rows: FloatArray) -> FloatArray:
    tensors = direction.at(3)
    weight, bias = (tensors[key].to(torch.float64).numpy() for key in ("weight", "bias"))
    return rows @ weight + bias


def optimum(positive: FloatArray, negative: FloatArray, l2: float, balance: bool) -> Any:
    """Log-odds as a function, from the objective written down and given to scipy."""
    rows = np.concatenate([positive, negative])
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    standard = (rows - mean) / scale
    signs = np.r_[np.ones(len(positive)), -np.ones(len(negative))]
    counts = np.where(signs > 0, len(positive), len(negative))
    weights = len(rows) / 2 / counts if balance else np.ones(len(rows))

    def objective(x: FloatArray) -> float:
        margins = signs * (standard @ x[:-1] + x[-1])
        return float(weights @ np.logaddexp(0, -margins) + l2 / 2 * x[:-1] @ x[:-1])

    found = minimize(objective, np.zeros(rows.shape[1] + 1), method="BFGS", tol=1e-10).x
    return lambda x: (x - mean) / scale @ found[:-1] + found[-1]


@pytest.mark.parametrize("l2", [0.3, 10.0])
@pytest.mark.parametrize("balance", [True, False])
def test_scores_are_those_of_the_minimum_of_the_objective(l2: float, balance: bool) -> None:
    positive, negative = sets(0, num_negative=120)
    direction = fitted(positive, negative, l2=l2, balance=balance)
    expected = optimum(positive, negative, l2, balance)
    for rows in (positive, negative):
        np.testing.assert_allclose(scores(direction, rows), expected(rows), atol=5e-3)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000))
def test_scores_do_not_depend_on_units_or_origin(seed: int) -> None:
    positive, negative = sets(seed)
    generator = np.random.default_rng(seed)
    units, origin = generator.uniform(0.01, 100, WIDTH), 50 * generator.standard_normal(WIDTH)
    before = scores(fitted(positive, negative), positive)
    moved = fitted(positive * units + origin, negative * units + origin)
    np.testing.assert_allclose(scores(moved, positive * units + origin), before, atol=1e-2)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000))
def test_swapping_the_labels_changes_the_sign(seed: int) -> None:
    positive, negative = sets(seed)
    forward, backward = fitted(positive, negative), fitted(negative, positive)
    np.testing.assert_allclose(scores(backward, positive), -scores(forward, positive), atol=1e-3)


def test_balance_makes_up_for_unequal_counts() -> None:
    positive, negative = sets(1, num_positive=2000, num_negative=60)
    plain, balanced = (fitted(positive, negative, balance=b) for b in (False, True))
    border = (positive.mean(axis=0) + negative.mean(axis=0)) / 2
    assert scores(plain, border[None])[0] > 2.0
    assert abs(scores(balanced, border[None])[0]) < 0.5


def test_a_constant_feature_and_fewer_samples_than_features() -> None:
    positive, negative = sets(2, num_positive=12, num_negative=12, width=200)
    positive[:, 5] = negative[:, 5] = 400.0
    direction = fitted(positive, negative)
    assert direction.at(3)["weight"][5] == 0
    assert direction.provenance["training_accuracy"] == 1.0
    assert (scores(direction, positive) > 0).all()


def test_ablating_the_probe_makes_its_score_a_constant() -> None:
    positive, negative = sets(3)
    direction = fitted(positive, negative)
    moved = apply_direction(direction, np.concatenate([positive, negative]), "ablate")
    assert np.ptp(scores(direction, moved)) < 1e-3


def test_what_is_recorded_and_that_it_does_not_vary() -> None:
    positive, negative = sets(4)
    direction = fitted(positive, negative, l2=2.0)
    assert direction.kind is DirectionKind.PROBE
    assert direction.provenance["method"] == "probe"
    assert direction.provenance["l2"] == 2.0
    expected = (scores(direction, positive) > 0).mean() + (scores(direction, negative) < 0).mean()
    assert direction.provenance["training_accuracy"] == pytest.approx(expected / 2)
    assert fitted(positive.copy(), negative.copy(), l2=2.0).digest == direction.digest


def test_what_cannot_be_fitted() -> None:
    positive, negative = sets(5)
    with pytest.raises(FitError, match="not told apart"):
        fitted(positive, positive)
    with pytest.raises(FitError, match="did not converge in 1 iterations") as caught:
        fitted(positive, negative, max_iterations=1)
    assert caught.value.param == "max_iterations"
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidFieldError, match="l2"):
            fitted(positive, negative, l2=value)
