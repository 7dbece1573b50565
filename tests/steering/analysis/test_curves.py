from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.special import expit

from steering.analysis import Padding, align_right, resample, score_table, sigmoid
from steering.errors import InvalidFieldError, ShapeMismatchError


def test_sigmoid_is_that_of_scipy_and_does_not_overflow() -> None:
    logits = np.concatenate([np.linspace(-800, 800, 33), np.random.standard_normal(50)])
    np.testing.assert_allclose(sigmoid(logits), expit(logits), rtol=1e-14)


def test_scores_are_projections_plus_bias() -> None:
    hidden, vectors = np.random.standard_normal((5, 3)), np.random.standard_normal((2, 3))
    table = score_table(hidden, vectors, [0.5, -1.0])
    for readout, (vector, bias) in enumerate(zip(vectors, (0.5, -1.0), strict=True)):
        for token, row in enumerate(hidden):
            assert table[readout, token] == pytest.approx(sum(row * vector) + bias)
    np.testing.assert_allclose(score_table(hidden, vectors), table - [[0.5], [-1.0]])


@pytest.mark.parametrize(
    ("vectors", "biases", "param"), [((2, 4), None, "vectors"), ((2, 3), [1.0], "biases")]
)
def test_shapes_that_do_not_fit_are_named(
    vectors: tuple[int, ...], biases: list[float] | None, param: str
) -> None:
    with pytest.raises(ShapeMismatchError) as caught:
        score_table(np.ones((5, 3)), np.ones(vectors), biases)
    assert caught.value.param == param


def test_curves_are_aligned_where_they_end() -> None:
    found = align_right([[1.0, 2.0, 3.0], [5.0]])
    np.testing.assert_array_equal(found.mean, [1.0, 2.0, 4.0])
    np.testing.assert_array_equal(found.counts, [1, 1, 2])


def test_zero_padding_is_the_published_average() -> None:
    curves = [np.random.random(length) for length in (7, 4, 9, 1)]
    padded = np.stack([np.pad(curve, (9 - len(curve), 0)) for curve in curves])
    found = align_right(curves, padding=Padding.ZERO)
    np.testing.assert_allclose(found.mean, padded.mean(axis=0))


def test_the_order_of_curves_does_not_matter() -> None:
    curves = [np.random.random(length) for length in (3, 8, 5)]
    np.testing.assert_allclose(align_right(curves).mean, align_right(curves[::-1]).mean)


@pytest.mark.parametrize("curves", [[], [[1.0], []]])
def test_nothing_to_average_is_refused(curves: list[list[float]]) -> None:
    with pytest.raises(InvalidFieldError, match="curves"):
        align_right(curves)


def test_resampling_is_cubic_interpolation() -> None:
    curve = np.random.random(23)
    expected = interp1d(np.arange(23), curve, kind="cubic")(np.linspace(0, 22, 100))
    np.testing.assert_allclose(resample(curve), expected, atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 50])
def test_resampling_keeps_both_ends_and_straight_lines(length: int) -> None:
    line = np.linspace(2.0, 5.0, length)
    found = resample(line, 11)
    assert found[0] == pytest.approx(line[0])
    assert found[-1] == pytest.approx(line[-1])
    np.testing.assert_allclose(found, np.linspace(line[0], line[-1], 11), atol=1e-9)


@pytest.mark.parametrize(("curve", "points"), [([], 100), ([1.0], 1)])
def test_nothing_to_resample_is_refused(curve: list[float], points: int) -> None:
    with pytest.raises(InvalidFieldError, match="curve"):
        resample(curve, points)
