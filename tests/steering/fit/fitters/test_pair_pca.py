from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from steering.directions import Direction, DirectionKind
from steering.errors import FitError
from steering.fit.fitters.means import fit_mean_difference
from steering.fit.fitters.pca import fit_pair_pca

from .apply_direction import apply_direction
from .gaussians import FloatArray

WIDTH = 16


def pairs(seed: int, *, gap: float = 2.0, noise: float = 1.0, num_pairs: int = 40) -> Any:
    """Pairs that share their topic and differ along the first axis, and a little by chance."""
    generator = np.random.default_rng(seed)
    topic = 5 * generator.standard_normal((num_pairs, WIDTH)) + 3
    difference = noise * generator.standard_normal((num_pairs, WIDTH)) * np.linspace(1, 0.1, WIDTH)
    difference[:, 0] += gap
    return topic + difference / 2, topic - difference / 2


def fitted(positive: FloatArray, negative: FloatArray, **options: Any) -> Direction:
    return fit_pair_pca(
        torch.from_numpy(positive), torch.from_numpy(negative), name="v", layer=3, **options
    )


def vector(direction: Direction) -> FloatArray:
    return direction.at(3)["vector"].to(torch.float64).numpy()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_axis_is_that_of_a_pca_of_differences_with_random_signs(seed: int) -> None:
    positive, negative = pairs(seed)
    differences = positive - negative
    both = PCA(1).fit(np.concatenate([differences, -differences])).components_[0]
    found = vector(fitted(positive, negative))
    assert abs(found @ both) / np.linalg.norm(found) == pytest.approx(1.0, abs=1e-9)
    gap = differences.mean(axis=0) @ found / np.linalg.norm(found)
    assert np.linalg.norm(found) == pytest.approx(gap, rel=1e-5)


def test_centring_differences_is_what_a_pca_library_does_and_removes_what_pairs_share() -> None:
    positive, negative = pairs(0, gap=0.0)
    positive[:, -1] += 10.0  # shared by all pairs, where they differ least by chance
    library = PCA(1).fit(positive - negative).components_[0]
    cosines = {}
    for centring in ("pairs", "differences"):
        found = vector(fitted(positive, negative, centring=centring))
        cosines[centring] = found / np.linalg.norm(found)
    assert abs(cosines["differences"] @ library) == pytest.approx(1.0, abs=1e-6)
    assert abs(cosines["differences"][-1]) < 0.1
    assert cosines["pairs"][-1] > 0.99


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_swapping_the_labels_turns_the_vector_round(seed: int) -> None:
    positive, negative = pairs(seed)
    forward, backward = vector(fitted(positive, negative)), vector(fitted(negative, positive))
    np.testing.assert_allclose(backward, -forward, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_shifts_and_rotations_of_activations_carry_over(seed: int) -> None:
    positive, negative = pairs(seed)
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.standard_normal((WIDTH, WIDTH)))[0]
    shift = 100 * generator.standard_normal(WIDTH)
    moved = vector(fitted(positive @ rotation + shift, negative @ rotation + shift))
    np.testing.assert_allclose(moved, vector(fitted(positive, negative)) @ rotation, atol=1e-4)


def test_most_pairs_decide_the_sign_and_must_not_contradict_the_mean() -> None:
    positive, negative = pairs(1, noise=0.01)
    swapped = slice(0, 15)
    positive[swapped], negative[swapped] = negative[swapped].copy(), positive[swapped].copy()
    found = fitted(positive, negative)
    assert vector(found)[0] > 0
    assert found.provenance["agreeing_pairs"] == pytest.approx(25 / 40)
    # Most pairs say one thing, a few large ones the other.
    positive[:, 0] = negative[:, 0] + 1.0
    positive[0, 0] = negative[0, 0] - 100.0
    with pytest.raises(FitError, match="against the sign of most pairs"):
        fitted(positive, negative)


def test_without_noise_it_is_the_difference_in_means() -> None:
    positive, negative = pairs(2, noise=0.0)
    means = fit_mean_difference(
        torch.from_numpy(positive), torch.from_numpy(negative), name="v", layer=3
    )
    np.testing.assert_allclose(vector(fitted(positive, negative)), vector(means), atol=1e-5)


def test_adding_it_carries_the_negative_mean_to_the_positive_one_along_the_axis() -> None:
    positive, negative = pairs(3)
    direction = fitted(positive, negative)
    unit = vector(direction) / np.linalg.norm(vector(direction))
    moved = apply_direction(direction, negative, "add")
    assert (moved @ unit).mean() == pytest.approx((positive @ unit).mean(), abs=1e-4)


def test_fewer_pairs_than_dimensions_and_what_is_recorded() -> None:
    positive, negative = pairs(4, num_pairs=5)
    direction = fitted(positive, negative)
    assert direction.kind is DirectionKind.VECTOR
    assert direction.provenance["method"] == "pair_pca"
    assert direction.provenance["centring"] == "pairs"
    assert 0 < direction.provenance["explained"] <= 1
    np.testing.assert_allclose(direction.at(3)["reference"], negative.mean(axis=0), rtol=1e-5)


def test_what_cannot_be_fitted() -> None:
    positive, negative = pairs(5)
    with pytest.raises(FitError, match="positive has 39 samples and negative 40"):
        fitted(positive[1:], negative)
    with pytest.raises(FitError, match="pairs do not differ"):
        fitted(positive, positive)
