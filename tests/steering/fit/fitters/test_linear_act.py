from __future__ import annotations

from typing import Any

import numpy as np
import ot  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.directions import Direction, DirectionKind
from steering.errors import FitError, InvalidFieldError
from steering.fit.fitters.linear_act import fit_linear_act
from steering.fit.fitters.means import fit_mean_difference

from .apply_direction import apply_direction
from .gaussians import FloatArray

WIDTH = 5


def sets(seed: int, *, num_positive: int = 40, num_negative: int = 40) -> Any:
    generator = np.random.default_rng(seed)
    negative = generator.gamma(2.0, size=(num_negative, WIDTH)) * np.linspace(0.5, 3, WIDTH)
    positive = generator.standard_normal((num_positive, WIDTH)) * np.linspace(2, 0.4, WIDTH) + 3
    return positive, negative


def fitted(positive: FloatArray, negative: FloatArray, **options: Any) -> Direction:
    return fit_linear_act(
        torch.from_numpy(positive), torch.from_numpy(negative), name="t", layer=3, **options
    )


def maps(direction: Direction) -> tuple[FloatArray, FloatArray]:
    tensors = direction.at(3)
    scale, shift = (tensors[key].to(torch.float64).numpy() for key in ("scale", "shift"))
    return scale, shift


def test_linear_is_the_least_squares_line_through_the_sorted_sets() -> None:
    positive, negative = sets(0)
    scale, shift = maps(fitted(positive, negative))
    for unit in range(WIDTH):
        x, y = np.sort(negative[:, unit]), np.sort(positive[:, unit])
        solution = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
        np.testing.assert_allclose([scale[unit], shift[unit]], solution, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 30), st.integers(2, 30))
def test_sets_of_different_sizes_are_matched_by_the_optimal_plan(
    seed: int, num_positive: int, num_negative: int
) -> None:
    positive, negative = sets(seed, num_positive=num_positive, num_negative=num_negative)
    scale, _ = maps(fitted(positive, negative))
    for unit in range(WIDTH):
        x, y = negative[:, unit], positive[:, unit]
        plan = ot.emd_1d(x, y)
        covariance = (x - x.mean()) @ plan @ (y - y.mean())
        assert scale[unit] == pytest.approx(covariance / x.var(), rel=1e-5)


@pytest.mark.parametrize("variant", ["linear", "gaussian", "mean"])
def test_the_operation_moves_the_moments_it_promises(variant: str) -> None:
    positive, negative = sets(1, num_positive=70)
    moved = apply_direction(fitted(positive, negative, variant=variant), negative, "diagonal")
    np.testing.assert_allclose(moved.mean(axis=0), positive.mean(axis=0), atol=1e-5)
    if variant == "gaussian":
        np.testing.assert_allclose(
            moved.std(axis=0, ddof=1), positive.std(axis=0, ddof=1), rtol=1e-5
        )
    if variant == "linear":
        # A line explains no more than there is.
        assert (moved.std(axis=0) <= positive.std(axis=0) + 1e-5).all()


def test_mean_is_the_difference_in_means_and_gaussian_data_make_all_linear_maps_one() -> None:
    positive, negative = sets(2)
    difference = fit_mean_difference(
        torch.from_numpy(positive), torch.from_numpy(negative), name="v", layer=3
    )
    scale, shift = maps(fitted(positive, negative, variant="mean"))
    np.testing.assert_array_equal(scale, 1.0)
    np.testing.assert_allclose(shift, difference.at(3)["vector"], atol=1e-6)
    affine = negative * np.linspace(0.3, 2, WIDTH) - 1.0
    for variant in ("linear", "gaussian"):
        scale, shift = maps(fitted(affine, negative, variant=variant))
        np.testing.assert_allclose(scale, np.linspace(0.3, 2, WIDTH), rtol=1e-5)
        np.testing.assert_allclose(shift, -1.0, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(["linear", "gaussian", "mean"]))
def test_maps_are_monotone_and_follow_units_and_order(seed: int, variant: str) -> None:
    positive, negative = sets(seed, num_positive=17, num_negative=33)
    scale, shift = maps(fitted(positive, negative, variant=variant))
    assert (scale >= 0).all()
    generator = np.random.default_rng(seed)
    factor, origin = generator.uniform(0.1, 9, WIDTH), 5 * generator.standard_normal(WIDTH)
    shuffled = generator.permutation(negative)
    moved, offset = maps(
        fitted(positive * factor + origin, shuffled * factor + origin, variant=variant)
    )
    np.testing.assert_allclose(moved, scale, rtol=1e-4)
    np.testing.assert_allclose(offset, factor * shift + origin * (1 - scale), rtol=1e-3, atol=1e-3)


def test_coordinates_without_spread_stay_as_they_are() -> None:
    positive, negative = sets(3)
    negative[:, 1] = 400.0
    positive[:, 2] = 1.0
    direction = fitted(positive, negative)
    scale, shift = maps(direction)
    assert (scale[[1, 2]] == 1).all()
    assert (shift[[1, 2]] == 0).all()
    assert direction.provenance["num_moved"] == WIDTH - 2
    assert direction.kind is DirectionKind.DIAGONAL
    assert direction.is_bound


def test_what_cannot_be_fitted() -> None:
    positive, negative = sets(4)
    with pytest.raises(FitError, match="no coordinate varies") as caught:
        fitted(np.ones((4, 3)), np.zeros((4, 3)))
    assert caught.value.param == "min_std"
    with pytest.raises(InvalidFieldError, match="min_std"):
        fitted(positive, negative, min_std=-1.0)
    with pytest.raises(InvalidFieldError, match="min_std is inf"):
        fitted(positive, negative, min_std=float("inf"))
