from __future__ import annotations

import json
from typing import Any

import numpy as np
import ot  # type: ignore[import-untyped]
import pytest
import torch

from steering.directions import Direction, DirectionKind
from steering.errors import FitError, InvalidFieldError, NonFiniteError, ShapeMismatchError
from steering.fit.fitters.gaussian_transport import fit_gaussian_transport
from steering.sites import Site

from .apply_direction import apply_direction
from .gaussians import covariance, geometric_map, samples, transported

WIDTH = 12
GAP = np.r_[2.0, -1.0, 0.5, np.zeros(WIDTH - 3)]


def sets(seed: int = 0, *, num_source: int = 300, num_target: int = 500) -> Any:
    generator = np.random.default_rng(seed)
    source = samples(generator, num_source, scales=np.array([3.0, 1.0]), width=WIDTH, mean=5.0)
    target = samples(
        generator, num_target, scales=np.array([1.5, 2.0]), width=WIDTH, mean=5.0 + GAP
    )
    return source, target


def fitted(source: np.ndarray, target: np.ndarray, **options: Any) -> Direction:
    defaults: dict[str, Any] = {"shrinkage": 0.0, "max_stretch": 1e9}
    return fit_gaussian_transport(
        torch.from_numpy(target),
        torch.from_numpy(source),
        name="t",
        layer=3,
        **(defaults | options),
    )


def axes(direction: Direction) -> np.ndarray:
    return direction.at(3)["basis"].to(torch.float64).numpy()


@pytest.mark.parametrize("rank", [1, 2, 5, WIDTH])
def test_moments_of_the_transported_set_are_the_targets_in_the_subspace(rank: int) -> None:
    source, target = sets()
    direction = fitted(source, target, rank=rank)
    moved, basis = transported(direction, source), axes(direction)
    np.testing.assert_allclose(moved.mean(axis=0), target.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(
        covariance(moved @ basis.T), covariance(target @ basis.T), rtol=1e-5, atol=1e-5
    )


def test_map_equals_an_independent_computation() -> None:
    source, target = sets(1)
    direction = fitted(source, target, rank=3)
    basis = axes(direction)
    expected = geometric_map(covariance(source @ basis.T), covariance(target @ basis.T))
    stored = direction.at(3)["map"].to(torch.float64).numpy() @ basis.T + np.eye(3)
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    np.testing.assert_allclose(stored, stored.T, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3, WIDTH])
def test_the_operation_carries_samples_where_pot_does(rank: int) -> None:
    source, target = sets(12)
    direction = fitted(source, target, rank=rank)
    basis = axes(direction)
    inside = [rows @ basis.T for rows in (source, target)]
    means = [rows.mean(axis=0) for rows in inside]
    covariances = [covariance(rows) for rows in inside]
    matrix, offset = ot.gaussian.bures_wasserstein_mapping(*means, *covariances)
    expected = inside[0] @ matrix + offset
    moved = apply_direction(direction, source, "transport") @ basis.T
    np.testing.assert_allclose(moved, expected, atol=1e-4)


def test_mean_and_shape_have_strengths_of_their_own() -> None:
    source, target = sets(13)
    direction, basis = fitted(source, target, rank=2), axes(fitted(source, target, rank=2))
    mean_only = apply_direction(direction, source, "transport", shape_strength=0.0)
    np.testing.assert_allclose(
        mean_only - source, np.tile(target.mean(0) - source.mean(0), (len(source), 1)), atol=1e-5
    )
    shape_only = apply_direction(direction, source, "transport", mean_strength=0.0)
    np.testing.assert_allclose(shape_only.mean(axis=0), source.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(
        covariance(shape_only @ basis.T), covariance(target @ basis.T), rtol=1e-4, atol=1e-4
    )


def test_half_way_is_the_displacement_interpolation() -> None:
    source, target = sets(14)
    direction, basis = fitted(source, target, rank=2), axes(fitted(source, target, rank=2))
    half = apply_direction(direction, source, "transport", strength=0.5)
    own, other = (covariance(rows @ basis.T) for rows in (source, target))
    between = (np.eye(2) + geometric_map(own, other)) / 2
    np.testing.assert_allclose(
        covariance(half @ basis.T), between @ own @ between.T, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(half.mean(0), (source.mean(0) + target.mean(0)) / 2, atol=1e-5)


def test_a_map_that_float32_cannot_hold_is_refused() -> None:
    source, target = sets(15)
    assert fitted(source, target).provenance["moment_error"] < 1e-5
    with pytest.raises(FitError, match="stored as float32 the map misses"):
        fitted(source + 1e7, target + 1e7)


def test_rank_one_is_the_monotone_map_of_the_projections() -> None:
    source, target = sets(2)
    direction = fitted(source, target, rank=1)
    axis = axes(direction)[0]
    before, after = source @ axis, transported(direction, source) @ axis
    ratio = (target @ axis).std(ddof=1) / before.std(ddof=1)
    expected = (target @ axis).mean() + ratio * (before - before.mean())
    np.testing.assert_allclose(after, expected, atol=1e-4)
    assert np.all(np.diff(after[np.argsort(before)]) >= 0)


def test_outside_the_subspace_only_the_mean_moves() -> None:
    source, target = sets(3)
    basis = axes(fitted(source, target, rank=2))
    outside = np.eye(WIDTH) - basis.T @ basis
    for eta in (0.0, 0.5, 1.0):
        moved = transported(fitted(source, target, rank=2, complement_shift=eta), source)
        shift = (target.mean(axis=0) - source.mean(axis=0)) @ outside
        np.testing.assert_allclose(
            (moved - source) @ outside, [eta * shift] * len(source), atol=1e-5
        )


def test_backward_undoes_forward() -> None:
    source, target = sets(4)
    forward, backward = fitted(source, target, rank=4), fitted(target, source, rank=4)
    np.testing.assert_allclose(
        transported(backward, transported(forward, source)), source, atol=1e-4
    )


def test_full_shrinkage_is_a_pure_shift() -> None:
    source, target = sets(5)
    direction = fitted(source, target, rank=4, shrinkage=1.0)
    assert direction.at(3)["map"].abs().max() < 1e-6
    shift = target.mean(axis=0) - source.mean(axis=0)
    np.testing.assert_allclose(direction.at(3)["shift"], shift, atol=1e-5)


def test_shrinkage_moves_both_covariances_to_their_average() -> None:
    source, target = sets(6)
    direction = fitted(source, target, rank=3, shrinkage=0.3)
    basis = axes(direction)
    own = [covariance(rows @ basis.T) for rows in (source, target)]
    average = (own[0] + own[1]) / 2
    expected = geometric_map(*(0.7 * matrix + 0.3 * average for matrix in own))
    stored = direction.at(3)["map"].to(torch.float64).numpy() @ basis.T + np.eye(3)
    np.testing.assert_allclose(stored, expected, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 8])
def test_under_the_null_shrinkage_brings_the_map_closer_to_the_identity(rank: int) -> None:
    spread: dict[float, list[float]] = {0.0: [], 0.5: []}
    for seed in range(8):
        generator = np.random.default_rng(seed)
        scales = 1.0 / np.arange(1, 33)
        source, target = (samples(generator, 128, scales=scales) for _ in range(2))
        for shrinkage, values in spread.items():
            direction = fitted(source, target, rank=rank, shrinkage=shrinkage)
            values.append(float(np.abs(np.log(direction.provenance["stretches"])).max()))
    raw, shrunk = np.mean(spread[0.0]), np.mean(spread[0.5])
    assert shrunk < 0.65 * raw
    assert raw < {1: 0.15, 2: 0.2, 8: 0.45}[rank]


def test_stretches_are_clipped() -> None:
    source, target = sets(7)
    target[:, 0] = 5.0 + GAP[0] + 20 * (source[:, 0].repeat(2)[: len(target)] - 5.0)
    direction = fitted(source, target, rank=3, max_stretch=2.0)
    stored = direction.at(3)["map"].to(torch.float64).numpy() @ axes(direction).T + np.eye(3)
    values = np.linalg.eigvalsh((stored + stored.T) / 2)
    assert values.max() == pytest.approx(2.0, abs=1e-5)
    assert values.min() >= 0.5 - 1e-5
    assert max(direction.provenance["stretches"]) > 2
    assert direction.provenance["num_clipped"] >= 1


def test_unequal_numbers_of_samples_do_not_tilt_the_subspace() -> None:
    source, target = sets(8)
    many = np.concatenate([target] * 7)
    first = fitted(source, target, rank=2).at(3)["basis"]
    second = fitted(source, many, rank=2).at(3)["basis"]
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_fewer_samples_than_dimensions() -> None:
    generator = np.random.default_rng(9)
    source = samples(generator, 20, scales=np.array([3.0, 2.0]), width=500)
    target = samples(generator, 24, scales=np.array([2.0, 3.0]), width=500, mean=0.3)
    direction = fitted(source, target, rank=2)
    moved = transported(direction, source)
    basis = axes(direction)
    np.testing.assert_allclose(covariance(moved @ basis.T), covariance(target @ basis.T), atol=1e-4)


def test_massive_activations_do_not_spoil_float32_storage() -> None:
    source, target = sets(10)
    source[:, -1] += 400.0
    target[:, -1] += 400.0
    direction = fitted(source, target, rank=2)
    np.testing.assert_allclose(
        transported(direction, source).mean(axis=0), target.mean(axis=0), atol=1e-3
    )


def test_the_result_says_how_it_was_made_and_does_not_vary() -> None:
    source, target = sets(11)
    direction = fit_gaussian_transport(
        torch.from_numpy(target),
        torch.from_numpy(source).to(torch.float32),
        name="calm",
        layer=3,
        site=Site.RESID_MID,
        model_fingerprint="f",
    )
    assert (direction.name, direction.kind) == ("calm", DirectionKind.TRANSPORT)
    assert (direction.site, direction.layers) == (Site.RESID_MID, (3,))
    assert direction.model_fingerprint == "f"
    provenance = json.loads(json.dumps(dict(direction.provenance)))
    assert (provenance["num_negative"], provenance["num_positive"]) == (300, 500)
    assert (provenance["rank"], provenance["shrinkage"], provenance["max_stretch"]) == (2, 0.2, 2.0)
    assert 0.5 < provenance["explained"] <= 1.0
    basis = axes(direction)
    gap = target.mean(axis=0) - source.mean(axis=0)
    share = np.linalg.norm(gap - gap @ basis.T @ basis) / np.linalg.norm(gap)
    assert provenance["shift_outside"] == pytest.approx(share, abs=1e-4)
    again = fitted(source, target, rank=2)
    assert again.digest == fitted(source.copy(), target.copy(), rank=2).digest


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("shrinkage", -0.1),
        ("shrinkage", 1.1),
        ("max_stretch", 0.5),
        ("complement_shift", 2.0),
        ("complement_shift", float("nan")),
    ],
)
def test_numbers_out_of_range(option: str, value: float) -> None:
    with pytest.raises(InvalidFieldError, match=option) as caught:
        fitted(*sets(), **{option: value})  # type: ignore[arg-type]
    assert caught.value.param == option


def test_data_that_cannot_be_fitted() -> None:
    source, target = sets()
    for rank in (0, WIDTH + 1):
        with pytest.raises(FitError, match=f"rank is {rank}"):
            fitted(source, target, rank=rank)
    with pytest.raises(FitError, match="support 1 to 3"):
        fitted(source[:2], target[:3], rank=4)
    with pytest.raises(FitError, match="do not vary within"):
        fitted(np.ones((4, 3)), np.zeros((4, 3)), rank=1)
    with pytest.raises(FitError, match="close to singular"):
        fitted(np.zeros((5, WIDTH)), target, rank=2)
    with pytest.raises(ShapeMismatchError, match="positive has width 3"):
        fitted(source, target[:, :3])
    target[0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="positive"):
        fitted(source, target)
