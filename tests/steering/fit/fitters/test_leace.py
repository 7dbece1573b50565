from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from steering.directions import Direction, DirectionKind
from steering.errors import FitError
from steering.fit.fitters.leace import fit_leace

from .apply_direction import apply_direction
from .gaussians import FloatArray

with warnings.catch_warnings():
    # It compiles a function on import in a way that torch calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from concept_erasure import LeaceEraser  # type: ignore[import-untyped]

WIDTH = 8


def sets(seed: int, *, sizes: tuple[int, int] = (120, 120), width: int = WIDTH) -> Any:
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((width, width)) / np.sqrt(width)
    gap = 1.5 * generator.standard_normal(width)
    positive, negative = (generator.standard_normal((n, width)) @ mixing + 4 for n in sizes)
    return positive + gap, negative


def fitted(positive: FloatArray, negative: FloatArray, **options: Any) -> Direction:
    return fit_leace(
        torch.from_numpy(positive), torch.from_numpy(negative), name="e", layer=3, **options
    )


def erased(direction: Direction, rows: FloatArray) -> FloatArray:
    return apply_direction(direction, rows, "transport")


@pytest.mark.parametrize("shrinkage", [True, False])
@pytest.mark.parametrize(("sizes", "width"), [((120, 120), 8), ((40, 40), 60), ((500, 500), 3)])
def test_it_erases_as_the_authors_library_does(
    shrinkage: bool, sizes: tuple[int, int], width: int
) -> None:
    positive, negative = sets(0, sizes=sizes, width=width)
    rows = np.concatenate([positive, negative])
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    eraser = LeaceEraser.fit(torch.from_numpy(rows), labels.to(torch.float64), shrinkage=shrinkage)
    direction = fitted(positive, negative, shrinkage=shrinkage)
    expected = eraser(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(erased(direction, rows), expected, atol=2e-4)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 1000),
    st.tuples(st.integers(8, 90), st.integers(8, 90)),
    st.sampled_from([2, 8, 40]),
    st.booleans(),
)
def test_both_sets_have_one_mean_afterwards(
    seed: int, sizes: tuple[int, int], width: int, shrinkage: bool
) -> None:
    positive, negative = sets(seed, sizes=sizes, width=width)
    direction = fitted(positive, negative, shrinkage=shrinkage)
    center = (positive.mean(axis=0) + negative.mean(axis=0)) / 2
    for rows in (positive, negative):
        np.testing.assert_allclose(erased(direction, rows).mean(axis=0), center, atol=1e-3)


def test_a_classifier_is_left_at_chance_and_twice_is_once() -> None:
    positive, negative = sets(1)
    direction = fitted(positive, negative)
    before = np.concatenate([positive, negative])
    labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    after = erased(direction, before)
    # Without regularisation, on the very samples: the most a linear classifier can learn.
    accuracy = [
        LogisticRegression(C=1e6, max_iter=5000).fit(rows, labels).score(rows, labels)
        for rows in (before, after)
    ]
    assert accuracy[0] > 0.95
    assert accuracy[1] < 0.56
    np.testing.assert_allclose(erased(direction, after), after, atol=1e-4)


def test_no_other_erasing_projection_changes_activations_less() -> None:
    positive, negative = sets(2)
    rows = np.concatenate([positive, negative])
    change = erased(fitted(positive, negative, shrinkage=False), rows) - rows
    gap, center = positive.mean(axis=0) - negative.mean(axis=0), rows.mean(axis=0)
    generator = np.random.default_rng(0)
    metric = generator.standard_normal((WIDTH, WIDTH))
    for read in [gap, *generator.standard_normal((50, WIDTH))]:
        other = -np.outer((rows - center) @ read, gap) / (read @ gap)
        for weight in (np.eye(WIDTH), metric):
            assert np.square(change @ weight).sum() <= np.square(other @ weight).sum() + 1e-6


def test_labels_do_not_matter_and_rotations_carry_over() -> None:
    positive, negative = sets(3)
    rows = np.concatenate([positive, negative])
    forward = erased(fitted(positive, negative), rows)
    np.testing.assert_allclose(erased(fitted(negative, positive), rows), forward, atol=1e-5)
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((WIDTH, WIDTH)))[0]
    turned = fitted(positive @ rotation, negative @ rotation)
    np.testing.assert_allclose(erased(turned, rows @ rotation), forward @ rotation, atol=1e-4)


def test_half_strength_leaves_half_the_gap() -> None:
    positive, negative = sets(4)
    direction = fitted(positive, negative)
    halves = [
        apply_direction(direction, x, "transport", strength=0.5) for x in (positive, negative)
    ]
    gap = positive.mean(axis=0) - negative.mean(axis=0)
    np.testing.assert_allclose(halves[0].mean(axis=0) - halves[1].mean(axis=0), gap / 2, atol=1e-4)


def test_with_isotropic_noise_it_is_the_orthogonal_projection() -> None:
    generator = np.random.default_rng(5)
    positive, negative = generator.standard_normal((2, 20_000, 3))
    positive[:, 0] += 2.0
    direction = fitted(positive, negative)
    assert direction.provenance["obliqueness"] == pytest.approx(1.0, abs=0.01)
    assert direction.kind is DirectionKind.TRANSPORT
    assert 0 <= direction.provenance["sample_share"] <= 1


def test_samples_that_share_nothing_say_nothing_of_the_covariance() -> None:
    """The published estimate is negative here; the covariance is then the identity alone."""
    rows = np.eye(40)
    direction = fitted(rows[:6], rows[6:12])
    assert direction.provenance["sample_share"] == 0.0
    assert direction.provenance["obliqueness"] == pytest.approx(1.0)


def test_massive_activations_stay_and_equal_means_are_refused() -> None:
    positive, negative = sets(6)
    positive[:, 2] = negative[:, 2] = 400.0
    moved = erased(fitted(positive, negative), positive)
    np.testing.assert_allclose(moved[:, 2], 400.0, atol=1e-3)
    with pytest.raises(FitError, match="means of positive and negative differ by 0"):
        fitted(positive, positive)
