from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.directions import Direction, DirectionKind
from steering.errors import FitError, InvalidFieldError, ShapeMismatchError
from steering.fit.fitters.null_space import fit_null_space

from .apply_direction import apply_direction
from .gaussians import FloatArray

WIDTH = 20


def sets(seed: int, *, num_positive: int = 30, num_negative: int = 400) -> Any:
    """Negative has its energy in the first ten axes; positive in others too."""
    generator = np.random.default_rng(seed)
    spread = np.r_[np.full(10, 3.0), np.full(10, 0.05)]
    negative = generator.standard_normal((num_negative, WIDTH)) * spread
    positive = generator.standard_normal((num_positive, WIDTH)) * spread
    return positive + np.r_[np.zeros(15), np.full(5, 4.0)], negative


def fitted(positive: np.ndarray, negative: np.ndarray, **options: Any) -> Direction:
    return fit_null_space(
        torch.from_numpy(positive), torch.from_numpy(negative), name="n", layer=3, **options
    )


def published(
    positive: np.ndarray, negative: np.ndarray, target: np.ndarray, ratio: float, ridge: float
) -> FloatArray:
    """The paper's d x d matrix, step by step: h' = h + s h Delta."""
    axes = np.linalg.svd(negative.T @ negative)[2]
    null = axes[len(axes) - int(ratio * len(axes)) :]
    projector = null.T @ null
    rows = positive @ projector
    inner = rows.T @ rows + ridge * projector.T @ projector
    wanted = np.outer(np.ones(len(rows)), target)
    return projector @ np.linalg.pinv(inner) @ rows.T @ wanted


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([0.3, 0.5, 0.6]), st.sampled_from([0.1, 10.0]))
def test_the_two_vectors_are_the_published_matrix(seed: int, ratio: float, ridge: float) -> None:
    positive, negative = sets(seed)
    target = np.random.default_rng(seed).standard_normal(WIDTH)
    direction = fitted(
        positive, negative, target=torch.from_numpy(target), null_ratio=ratio, ridge=ridge
    )
    delta = published(positive, negative, target, ratio, ridge)
    moved = apply_direction(direction, positive, "transport", strength=0.7)
    np.testing.assert_allclose(moved, positive + 0.7 * positive @ delta, atol=2e-4)
    assert np.linalg.matrix_rank(delta, tol=1e-8) == 1


def test_positive_is_pushed_by_the_target_and_negative_hardly_moves() -> None:
    positive, negative = sets(0)
    target = np.zeros(WIDTH)
    target[3] = 2.0
    direction = fitted(positive, negative, target=torch.from_numpy(target))
    pushed = apply_direction(direction, positive, "transport") - positive
    np.testing.assert_allclose(pushed.mean(axis=0), target, atol=0.05)
    left = apply_direction(direction, negative, "transport") - negative
    assert np.abs(left).max() < 0.1 * np.linalg.norm(target)
    gates = direction.provenance["mean_gate"]
    assert gates["positive"] == pytest.approx(1.0, abs=0.02)
    assert abs(gates["negative"]) < 0.02
    assert direction.provenance["null_dimensions"] == WIDTH // 2
    assert direction.kind is DirectionKind.TRANSPORT


def test_the_default_target_is_the_difference_in_means() -> None:
    positive, negative = sets(1)
    gap = positive.mean(axis=0) - negative.mean(axis=0)
    direction = fitted(positive, negative)
    row = direction.at(3)["map"][0].numpy()
    assert row @ gap / np.linalg.norm(row) / np.linalg.norm(gap) == pytest.approx(1.0)


def test_what_few_negatives_do_not_span_is_all_null_space() -> None:
    positive, negative = sets(2, num_negative=4)
    direction = fitted(positive, negative, null_ratio=0.1)
    assert direction.provenance["null_dimensions"] == WIDTH - 4
    assert direction.provenance["largest_gate"]["negative"] < 1e-9


def test_units_carry_over_with_the_ridge_in_squared_units() -> None:
    positive, negative = sets(3)
    moved = apply_direction(fitted(positive, negative, ridge=10.0), positive, "transport")
    scaled = fitted(100 * positive, 100 * negative, ridge=10.0 * 100**2)
    np.testing.assert_allclose(
        apply_direction(scaled, 100 * positive, "transport"), 100 * moved, rtol=1e-4, atol=1e-2
    )


def test_what_cannot_be_fitted() -> None:
    positive, negative = sets(4)
    within = np.r_[np.ones(10), np.zeros(10)]
    with pytest.raises(FitError, match="lies outside the main directions") as caught:
        fitted(positive * within, negative * within)
    assert caught.value.param == "null_ratio"
    for option, value in (("null_ratio", 0.0), ("null_ratio", 1.0), ("ridge", 0.0)):
        with pytest.raises(InvalidFieldError, match=option):
            fitted(positive, negative, **{option: value})
    with pytest.raises(ShapeMismatchError, match=r"target has shape \[3\]"):
        fitted(positive, negative, target=torch.ones(3))
    for empty in (torch.zeros(WIDTH), torch.full((WIDTH,), torch.nan)):
        with pytest.raises(FitError, match="target has norm"):
            fitted(positive, negative, target=empty)
