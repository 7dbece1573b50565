from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.errors import FitError
from steering.fit.fitters.gaussian_transport import gaussian_map

from .gaussians import geometric_map

CASES = st.tuples(st.integers(0, 10_000), st.integers(1, 6))


def random_covariances(seed: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    factors = generator.standard_normal((2, rank, rank))
    first, second = (factor @ factor.T + 0.1 * np.eye(rank) for factor in factors)
    return first, second


def mapped(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return gaussian_map(torch.from_numpy(source), torch.from_numpy(target)).numpy()


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_is_the_one_symmetric_positive_map_of_source_to_target(case: tuple[int, int]) -> None:
    source, target = random_covariances(*case)
    result = mapped(source, target)
    assert np.array_equal(result, result.T)
    assert np.linalg.eigvalsh(result).min() > 0
    np.testing.assert_allclose(result @ source @ result, target, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result @ mapped(target, source), np.eye(len(source)), atol=1e-8)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_equals_an_independent_computation(case: tuple[int, int]) -> None:
    source, target = random_covariances(*case)
    expected = geometric_map(source, target)
    np.testing.assert_allclose(mapped(source, target), expected, rtol=1e-6, atol=1e-8)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_moves_as_little_as_any_map_with_the_same_result(case: tuple[int, int]) -> None:
    source, target = random_covariances(*case)
    rank = len(source)
    generator = np.random.default_rng(case[0])
    rotation = np.linalg.qr(generator.standard_normal((rank, rank)))[0]
    other = np.linalg.cholesky(target) @ rotation @ np.linalg.inv(np.linalg.cholesky(source))
    np.testing.assert_allclose(other @ source @ other.T, target, atol=1e-8)

    def cost(matrix: np.ndarray) -> float:
        moved = matrix - np.eye(rank)
        return float(np.trace(moved @ source @ moved.T))

    assert cost(mapped(source, target)) <= cost(other) + 1e-9


@settings(deadline=None, max_examples=30)
@given(CASES, st.floats(0.1, 10.0))
def test_equal_covariances_stay_and_scaled_ones_are_scaled(
    case: tuple[int, int], scale: float
) -> None:
    source, _ = random_covariances(*case)
    np.testing.assert_allclose(mapped(source, source), np.eye(len(source)), atol=1e-9)
    scaled = np.sqrt(scale) * np.eye(len(source))
    np.testing.assert_allclose(mapped(source, scale * source), scaled, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.diag([1.0, 0.0]), np.eye(2)),
        (np.eye(2), np.diag([1.0, 1e-12])),
        (np.eye(2), np.zeros((2, 2))),
        (np.zeros((1, 1)), np.eye(1)),
    ],
)
def test_singular_covariances_are_refused(source: np.ndarray, target: np.ndarray) -> None:
    with pytest.raises(FitError, match="close to singular") as caught:
        mapped(source, target)
    assert caught.value.param == "rank"
