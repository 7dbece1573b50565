from __future__ import annotations

import numpy as np
import pytest
import torch

from steering.directions import DirectionKind
from steering.errors import FitError
from steering.fit import ActivationPair
from steering.fit.fitters.pca import fit_pca, pooled_pca

from .gaussians import samples

SCALES = np.array([4.0, 2.0, 1.0, 0.5])


def pair(seed: int = 0, *, gap: float = 0.0, num_target: int = 200) -> ActivationPair:
    generator = np.random.default_rng(seed)
    source = samples(generator, 200, scales=SCALES, mean=1.0)
    target = samples(generator, num_target, scales=SCALES, mean=1.0 + gap * np.eye(4)[3])
    return ActivationPair.of(
        torch.from_numpy(source), torch.from_numpy(target), names=("source", "target")
    )


@pytest.mark.parametrize("rank", [1, 3, 4])
@pytest.mark.parametrize("num_target", [200, 900])
def test_axes_and_variances_are_those_of_the_balanced_covariance(
    rank: int, num_target: int
) -> None:
    data = pair(gap=1.0, num_target=num_target)
    pca = pooled_pca(data, rank)
    center = (data.source_mean + data.target_mean) / 2
    matrix = sum((x - center).T @ (x - center) / (2 * len(x)) for x in (data.source, data.target))
    values, vectors = np.linalg.eigh(np.asarray(matrix))
    np.testing.assert_allclose(pca.variances, values[::-1][:rank], rtol=1e-10)
    overlap = np.abs((pca.axes.numpy() * vectors.T[::-1][:rank]).sum(axis=1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-8)
    np.testing.assert_allclose(pca.axes @ pca.axes.T, np.eye(rank), atol=1e-12)
    assert pca.explained == pytest.approx(values[::-1][:rank].sum() / values.sum())


def test_a_wide_gap_is_the_first_axis_and_points_to_the_target() -> None:
    data = pair(gap=40.0)
    axis = pooled_pca(data, 1).axes[0]
    assert float(axis @ data.shift / data.shift.norm()) > 0.999
    swapped = ActivationPair(data.target, data.source)
    np.testing.assert_allclose(pooled_pca(swapped, 1).axes[0], -axis, atol=1e-9)


def test_without_a_gap_signs_are_still_decided() -> None:
    half = pair().source
    data = ActivationPair(half, half.flip(0))
    axes = pooled_pca(data, 3).axes
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    assert bool((largest > 0).all())


def test_rank_is_bounded_by_samples_width_and_span() -> None:
    data = pair()
    few = ActivationPair(data.source[:2], data.target[:2])
    with pytest.raises(FitError, match="support 1 to 2") as caught:
        pooled_pca(few, 3)
    assert caught.value.param == "rank"
    flat = ActivationPair(data.source * torch.tensor([1.0, 1, 0, 0]), data.target * torch.eye(4)[0])
    assert pooled_pca(flat, 2).explained == pytest.approx(1.0)
    with pytest.raises(FitError, match="vary along 2 directions only"):
        pooled_pca(flat, 3)


def test_fit_pca_is_a_basis_with_the_negative_mean_as_reference() -> None:
    data = pair(gap=3.0)
    direction = fit_pca(data.target, data.source.to(torch.float32), name="b", layer=2, rank=2)
    assert (direction.kind, direction.layers) == (DirectionKind.BASIS, (2,))
    np.testing.assert_allclose(
        direction.at(2)["basis"], pooled_pca(data, 2).axes.to(torch.float32), atol=1e-5
    )
    np.testing.assert_allclose(direction.at(2)["reference"], data.source_mean, rtol=1e-5)
    assert direction.provenance["num_negative"] == 200
    assert len(direction.provenance["variances"]) == 2
