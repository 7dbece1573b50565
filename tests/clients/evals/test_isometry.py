"""Random directions: as long as the given one, at the same angles, somewhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from coxswain_evals.controls.directions import read_tensors, turned, write_tensors

WIDTH = 48


def direction(kind: str, layers: tuple[str, ...] = ("",)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    kinds: dict[str, dict[str, tuple[int, ...]]] = {
        "vector": {"vector": (WIDTH,), "reference": (WIDTH,)},
        "basis": {"basis": (3, WIDTH)},
        "plane": {"basis": (2, WIDTH)},
        "transport": {"basis": (2, WIDTH), "offset": (2,), "map": (2, WIDTH), "shift": (WIDTH,)},
        "diagonal": {"scale": (WIDTH,), "shift": (WIDTH,)},
        "heads": {"scale": (8,)},
    }
    return {
        f"{name}{layer}": rng.standard_normal(shape).astype(np.float32)
        for name, shape in kinds[kind].items()
        for layer in layers
    }


def rows(tensors: dict[str, np.ndarray]) -> np.ndarray:
    turns = sorted(n for n in tensors if n.split(".")[0] not in ("reference", "offset"))
    return np.concatenate([np.atleast_2d(tensors[name]) for name in turns]).astype(np.float64)


@pytest.mark.parametrize("layers", [("",), (".1", ".2", ".3")], ids=["one", "per-layer"])
@pytest.mark.parametrize("kind", ["vector", "basis", "plane", "transport"])
def test_norms_and_angles_stay_and_the_place_does_not(kind: str, layers: tuple[str, ...]) -> None:
    given = direction(kind, layers)
    made = turned(given, kind, seed=3)
    before, after = rows(given), rows(made)
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-4)
    cosines = (after * before).sum(1) / (before**2).sum(1)
    assert np.abs(cosines).max() < 0.6
    for name in given.keys() - {n for n in given if n.split(".")[0] not in ("reference", "offset")}:
        np.testing.assert_array_equal(made[name], given[name])


@pytest.mark.parametrize("kind", ["diagonal", "heads"])
def test_coordinates_are_shuffled_alike(kind: str) -> None:
    given = direction(kind)
    made = turned(given, kind, seed=3)
    assert sorted(zip(*made.values(), strict=True)) == sorted(zip(*given.values(), strict=True))
    assert any((made[name] != given[name]).any() for name in given)


def test_a_seed_decides_and_another_decides_otherwise() -> None:
    given = direction("vector")
    one, same, other = (turned(given, "vector", seed)["vector"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert abs(one @ other) < 0.6 * (one @ one)


def test_random_directions_are_uniform() -> None:
    """Along any axis: no mean, and the variance of a coordinate of a unit vector."""
    vector = {"vector": np.eye(1, 4, dtype=np.float32)[0]}
    drawn = np.stack([turned(vector, "vector", seed)["vector"] for seed in range(800)])
    np.testing.assert_allclose(drawn.mean(0), 0, atol=4 * 0.5 / 800**0.5)
    np.testing.assert_allclose(drawn.var(0), 0.25, atol=0.04)


def test_files_are_read_as_float32_whatever_they_hold() -> None:
    stored = torch.linspace(-3, 3, 7)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        tensors = read_tensors(save({"vector.1": stored.to(dtype)}))
        np.testing.assert_array_equal(tensors["vector.1"], stored.to(dtype).float().numpy())


def test_views_are_written_as_they_read() -> None:
    view = np.arange(12, dtype=np.float32).reshape(3, 4).T[1]
    assert load(write_tensors({"vector": view}))["vector"].tolist() == view.tolist()
