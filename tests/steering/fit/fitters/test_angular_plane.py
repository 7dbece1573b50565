from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from steering.directions import DirectionKind
from steering.errors import FitError, NonFiniteError
from steering.fit.fitters.angular_plane import fit_angular_plane

from .apply_direction import apply_direction
from .gaussians import FloatArray

WIDTH = 12
LAYERS = (2, 3, 5, 8)


def sets(seed: int, *, noise: float = 0.3) -> Any:
    """A difference that turns from the first axis to the second with depth, growing."""
    generator = np.random.default_rng(seed)
    positive: dict[int, FloatArray] = {}
    negative: dict[int, FloatArray] = {}
    for layer in LAYERS:
        angle = 0.12 * layer
        gap = layer * np.r_[np.cos(angle), np.sin(angle), np.zeros(WIDTH - 2)]
        common = np.r_[np.zeros(WIDTH - 1), 10.0]
        positive[layer] = noise * generator.standard_normal((50, WIDTH)) + common + gap
        negative[layer] = noise * generator.standard_normal((70, WIDTH)) + common
    return positive, negative


def tensors(rows: dict[int, FloatArray]) -> dict[int, torch.Tensor]:
    return {layer: torch.from_numpy(value) for layer, value in rows.items()}


def published(positive: Any, negative: Any) -> tuple[FloatArray, FloatArray, int]:
    """b1, b2 and the layer of b1, as the authors' script computes them."""

    def unit(rows: FloatArray) -> FloatArray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    candidates = np.stack(
        [
            unit(unit(positive[layer]).mean(axis=0)) - unit(unit(negative[layer]).mean(axis=0))
            for layer in LAYERS
        ]
    )
    best = int((unit(candidates) @ unit(candidates).T).mean(axis=1).argmax())
    first, second = unit(candidates[best]), PCA().fit(candidates).components_[0]
    return first, unit(second - (second @ first) * first), LAYERS[best]


@pytest.mark.parametrize("seed", range(5))
def test_axes_are_the_published_ones(seed: int) -> None:
    positive, negative = sets(seed)
    plane = fit_angular_plane(tensors(positive), tensors(negative), name="p")
    first, second = plane.at(3)["basis"].numpy()
    b1, b2, layer = published(positive, negative)
    np.testing.assert_allclose(first, b1, atol=1e-5)
    assert abs(second @ b2) == pytest.approx(1.0, abs=1e-5)
    assert abs(first @ second) < 1e-6
    assert plane.provenance["first_axis_layer"] == layer
    assert list(plane.provenance["mean_cosines"]) == [str(layer) for layer in LAYERS]


def test_the_plane_is_that_of_the_turning_difference_and_serves_every_layer() -> None:
    positive, negative = sets(0, noise=0.01)
    plane = fit_angular_plane(
        tensors(positive), tensors(negative), name="p", unit_samples=False, model_fingerprint="f"
    )
    assert plane.kind is DirectionKind.PLANE
    assert plane.layers == LAYERS
    assert not plane.is_per_layer
    basis = plane.at(5)["basis"].numpy()
    assert np.abs(basis[:, 2:]).max() < 0.02
    assert np.abs(basis[1]).max() == basis[1].max()


def test_turning_to_0_points_along_the_difference_and_keeps_the_rest() -> None:
    positive, negative = sets(1)
    plane = fit_angular_plane(tensors(positive), tensors(negative), name="p")
    basis = plane.at(5)["basis"].to(torch.float64).numpy()
    for angle, expected in ((0.0, [1.0, 0.0]), (90.0, [0.0, 1.0]), (180.0, [-1.0, 0.0])):
        moved = apply_direction(plane, negative[5], "rotate_to", layer=5, angle=angle)
        before, after = negative[5] @ basis.T, moved @ basis.T
        lengths = np.linalg.norm(before, axis=1, keepdims=True)
        np.testing.assert_allclose(after, lengths * expected, atol=1e-4)
        np.testing.assert_allclose(moved - after @ basis, negative[5] - before @ basis, atol=1e-4)


def test_scaling_a_layer_changes_nothing_when_samples_are_scaled_to_one() -> None:
    positive, negative = sets(2)
    plane = fit_angular_plane(tensors(positive), tensors(negative), name="p")
    for rows in (positive, negative):
        rows[8] = rows[8] * 100.0
    again = fit_angular_plane(tensors(positive), tensors(negative), name="p")
    torch.testing.assert_close(again.at(2)["basis"], plane.at(2)["basis"])


def test_swapping_the_labels_turns_the_first_axis_round() -> None:
    positive, negative = (tensors(rows) for rows in sets(3))
    forward = fit_angular_plane(positive, negative, name="p").at(2)["basis"]
    backward = fit_angular_plane(negative, positive, name="p").at(2)["basis"]
    torch.testing.assert_close(backward[0], -forward[0])
    torch.testing.assert_close(backward[1], forward[1])


def test_what_cannot_be_fitted() -> None:
    positive, negative = (tensors(rows) for rows in sets(4))
    with pytest.raises(FitError, match="at least 3"):
        fit_angular_plane(
            {2: positive[2], 3: positive[3]}, {2: negative[2], 3: negative[3]}, name="p"
        )
    with pytest.raises(FitError, match="expected the same ones"):
        fit_angular_plane(positive, {**negative, 9: negative[2]}, name="p")
    with pytest.raises(FitError, match="same prompts at every layer"):
        fit_angular_plane({**positive, 8: positive[8][1:]}, negative, name="p")
    same = {layer: rows[:50] for layer, rows in negative.items()}
    with pytest.raises(FitError, match="means of layer 5"):
        fit_angular_plane({**positive, 5: same[5]}, same, name="p")
    line = {layer: same[layer] + layer * torch.eye(WIDTH)[0] for layer in LAYERS}
    with pytest.raises(FitError, match="lie on one line"):
        fit_angular_plane(line, same, name="p", unit_samples=False)
    negative[3][0, 0] = torch.nan
    with pytest.raises(NonFiniteError) as caught:
        fit_angular_plane(positive, negative, name="p")
    assert caught.value.param == "layers.3.negative"
