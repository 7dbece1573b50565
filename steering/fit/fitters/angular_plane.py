"""The plane in which angular steering turns activations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.errors import FitError
from steering.fit.activations import ActivationPair, joint_digest, pairs_by_layer
from steering.sites import Site

from .pca import oriented


def fit_angular_plane(
    positive: Mapping[int, Tensor],
    negative: Mapping[int, Tensor],
    *,
    name: str,
    unit_samples: bool = True,
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """basis [2, d]: b1 the most typical difference in means, b2 where the layers' ones differ.

    b1 is the difference in means of the layer whose cosines with those of all layers have the
    highest mean; b2 the first principal component of the differences of all layers around their
    mean, made orthogonal to b1. `rotate_to` an angle of 0 points along b1, 90 along b2. One plane
    for all layers given; kind `plane`. The sign of b2 is open: its largest entry is positive.

    positive {layer: [N, d]}, negative {layer: [M, d]}, any float dtype, at least three layers.

    Args:
        positive: Activations that b1 points to.
        negative: Activations it points away from.
        name: Name of the direction.
        unit_samples: Whether every activation, and then each mean, is scaled to length 1, so that
            neither large samples nor late layers dominate. The published choice.
        site: Where the activations were taken; the paper acts at the outputs of norms.
        model_fingerprint: Model the activations are from.

    Raises:
        FitError: Fewer than three layers, a layer whose means are the same, or differences that
            lie on one line, so that they span no plane.
        SteeringError: Tensors that are not two finite matrices of one width.

    Source: Vu and Nguyen 2025, arXiv:2510.26243.
    """
    pairs = pairs_by_layer(positive, negative, min_layers=3)
    layers = tuple(pairs)
    differences = torch.stack([_difference(pair, unit_samples) for pair in pairs.values()])
    units, mean_cosines = _cosines(differences, layers)
    chosen = int(mean_cosines.argmax())
    first = units[chosen]
    second, explained, cosine = _second_axis(differences, first)
    return Direction(
        name=name,
        kind=DirectionKind.PLANE,
        site=site,
        layers=layers,
        tensors={"basis": torch.stack([first, second]).to(torch.float32)},
        model_fingerprint=model_fingerprint,
        provenance={
            "method": "angular_plane",
            "num_positive": len(pairs[layers[0]].target),
            "num_negative": len(pairs[layers[0]].source),
            "data_sha256": joint_digest(pairs),
            "unit_samples": unit_samples,
            "first_axis_layer": layers[chosen],
            "mean_cosines": dict(zip(map(str, layers), mean_cosines.tolist(), strict=True)),
            "explained": explained,
            "cosine_before_orthogonalising": cosine,
        },
    )


def _cosines(differences: Tensor, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Unit differences [L, d], and of each the mean of its cosines with all [L]."""
    lengths = differences.norm(dim=1, keepdim=True)
    if float(lengths.min()) < MIN_NORM:
        raise FitError(
            f"the means of layer {layers[int(lengths.argmin())]} differ by "
            f"{float(lengths.min()):.3g}; expected at least {MIN_NORM:g}",
            param="positive",
        )
    units = differences / lengths
    return units, (units @ units.T).mean(dim=1)


def _second_axis(differences: Tensor, first: Tensor) -> tuple[Tensor, float, float]:
    """b2 [d], the variance its component explains, and the cosine that one had with b1."""
    centred = differences - differences.mean(dim=0)
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
    cosine = float(axes[0] @ first)
    second = axes[0] - cosine * first
    if float(singular[0]) < MIN_NORM or float(second.norm()) < MIN_NORM:
        raise FitError(
            "the differences of all layers lie on one line; expected layers that differ",
            param="positive",
        )
    [unit] = oriented((second / second.norm())[None], torch.zeros_like(first))
    return unit, float(singular[0] ** 2 / (singular**2).sum()), cosine


def _difference(pair: ActivationPair, unit_samples: bool) -> Tensor:
    if not unit_samples:
        return pair.shift
    source, target = (_unit(_unit(rows).mean(dim=0)) for rows in (pair.source, pair.target))
    return target - source


def _unit(rows: Tensor) -> Tensor:
    units: Tensor = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    return units
