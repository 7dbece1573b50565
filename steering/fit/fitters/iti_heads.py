"""Shifting the few attention heads that know best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.errors import FitError, InvalidFieldError
from steering.fit.activations import MIN_SAMPLES, ActivationPair, joint_digest, pairs_by_layer
from steering.fit.options import OpenUnitInterval, Positive, check_number
from steering.sites import Site

from .probe import logistic_regression


@dataclass(frozen=True, eq=False, slots=True)
class _Head:
    layer: int
    index: int
    accuracy: float
    d_prime: float
    shift: Tensor  # sigma theta [head_dim]

    def to_dict(self) -> dict[str, float | None]:
        return {
            "layer": self.layer,
            "head": self.index,
            "accuracy": self.accuracy,
            "d_prime": self.d_prime if math.isfinite(self.d_prime) else None,
            "sigma": float(self.shift.norm()),
        }


def fit_iti_heads(
    positive: Mapping[int, Tensor],
    negative: Mapping[int, Tensor],
    *,
    name: str,
    num_heads: int,
    top_k: int | None = None,
    validation: OpenUnitInterval = 0.2,
    l2: Positive = 1.0,
    seed: int = 0,
    site: Site = Site.HEADS,
    model_fingerprint: str | None = None,
) -> Direction:
    """vector.l = sigma theta of the selected heads of layer l, zero elsewhere.

    Each head of each layer gets a logistic probe; the `top_k` heads with the highest accuracy on
    held-out samples are selected, of equals (many reach 1) those with the higher d'. theta is
    the unit difference of the means of all samples of a head, sigma the standard deviation of all
    their projections on it. Adding the direction with strength alpha (15 in the paper, unit `raw`)
    shifts every selected head by alpha sigma theta.

    positive {layer: [N, num_heads head_dim]}, negative {layer: [M, num_heads head_dim]}: the input
    of the attention output projection, any float dtype. Kind `vector`, with a set for each layer
    that has a selected head.

    Args:
        positive: Activations to shift towards.
        negative: Activations to shift away from.
        name: Name of the direction.
        num_heads: Query heads per layer.
        top_k: Heads to select; None takes 5 % of all, at least one (48 of 1024 in the paper).
        validation: Share of each set held out for the accuracies, in (0, 1). Sets of one size are
            split at the same rows, so that pairs stay together.
        l2: Regularisation of the probes, as in `fit_probe`.
        seed: Seed of the split.
        site: `heads`; nothing else has heads.
        model_fingerprint: Model the activations are from.

    Raises:
        FitError: Too few samples to hold any out, or no head whose means differ.
        InvalidFieldError: A number outside its range, or a width that is not a multiple of
            `num_heads`.
        SteeringError: Tensors that are not two finite matrices of one width.

    Source: Li et al. 2023, arXiv:2306.03341.
    """
    pairs = pairs_by_layer(positive, negative)
    width = next(iter(pairs.values())).source.shape[1]
    _check(site, num_heads, width)
    heads = _measured(pairs, num_heads, validation, l2, seed)
    ranked = _best(heads, math.ceil(0.05 * num_heads * len(pairs)) if top_k is None else top_k)
    layers = tuple(sorted({head.layer for head in ranked}))
    tensors = {f"vector.{layer}": torch.zeros(width) for layer in layers}
    for head in ranked:
        start = head.index * len(head.shift)
        tensors[f"vector.{head.layer}"][start : start + len(head.shift)] = head.shift
    any_pair = pairs[layers[0]]
    return Direction(
        name=name,
        kind=DirectionKind.VECTOR,
        site=site,
        layers=layers,
        tensors=tensors,
        model_fingerprint=model_fingerprint,
        provenance={
            "method": "iti_heads",
            "num_positive": len(any_pair.target),
            "num_negative": len(any_pair.source),
            "data_sha256": joint_digest(pairs),
            "top_k": len(ranked),
            "validation": validation,
            "l2": l2,
            "seed": seed,
            "heads": [head.to_dict() for head in ranked],
            "accuracies": _by_layer(heads),
        },
    )


def _best(heads: list[_Head], count: int) -> list[_Head]:
    """The `count` most accurate, of equals those with the higher d'."""
    check_top_k(count, len(heads))
    return sorted(heads, key=lambda head: (-head.accuracy, -head.d_prime, head.layer, head.index))[
        :count
    ]


def _check(site: Site, num_heads: int, width: int) -> None:
    if site is not Site.HEADS:
        raise InvalidFieldError(
            f"site is {site.value!r}; expected 'heads', the only site with one part per head",
            param="site",
        )
    if num_heads < 1 or width % num_heads:
        raise InvalidFieldError(
            f"num_heads is {num_heads}; expected a divisor of the width {width}", param="num_heads"
        )


def check_held_out(num_samples: int, validation: float) -> int:
    """Samples of a set that are held out, of which enough must be left on either side.

    Raises:
        FitError: There are too few.
        InvalidFieldError: `validation` is no share.
    """
    check_number(OpenUnitInterval, validation, "validation")
    held = round(validation * num_samples)
    if min(held, num_samples - held) < MIN_SAMPLES:
        raise FitError(
            f"{num_samples} samples leave {held} to validate and {num_samples - held} to fit; "
            f"expected at least {MIN_SAMPLES} of each",
            param="validation",
        )
    return held


def check_top_k(top_k: int, num_heads: int) -> None:
    """Check that so many of `num_heads` whose means differ can be selected.

    Raises:
        InvalidFieldError: They cannot.
    """
    if not 1 <= top_k <= num_heads:
        raise InvalidFieldError(
            f"top_k is {top_k}; expected 1 to {num_heads}, the heads whose means differ",
            param="top_k",
        )


def _measured(
    pairs: Mapping[int, ActivationPair], num_heads: int, validation: float, l2: float, seed: int
) -> list[_Head]:
    """Every head whose means differ, with its accuracy on held-out samples."""
    heads = []
    for layer, pair in pairs.items():
        source, target = (rows.chunk(num_heads, dim=1) for rows in (pair.source, pair.target))
        for index in range(num_heads):
            own = ActivationPair(source[index], target[index])
            if float(own.shift.norm()) >= MIN_NORM:
                accuracy, d_prime = _held_out(own, validation, l2, seed)
                heads.append(_Head(layer, index, accuracy, d_prime, _sigma_theta(own)))
    if not heads:
        raise FitError("no head's means differ between the sets", param="positive")
    return heads


def _sigma_theta(pair: ActivationPair) -> Tensor:
    theta = pair.shift / pair.shift.norm()
    sigma = (torch.cat([pair.source, pair.target]) @ theta).std(correction=0)
    result: Tensor = (sigma * theta).to(torch.float32)
    return result


def _held_out(pair: ActivationPair, validation: float, l2: float, seed: int) -> tuple[float, float]:
    """Balanced accuracy and d' on held-out samples of a probe fitted on the others."""
    (source, held_source), (target, held_target) = (
        _split(rows, validation, seed) for rows in (pair.source, pair.target)
    )
    weight, bias, _ = logistic_regression(ActivationPair(source, target), l2=l2)
    hits = (held_target @ weight + bias > 0, held_source @ weight + bias < 0)
    accuracy = sum(float(hit.to(torch.float64).mean()) for hit in hits) / 2
    return accuracy, ActivationPair(held_source, held_target).separation(weight)


def _split(rows: Tensor, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    held = check_held_out(len(rows), validation)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[held:]], rows[order[:held]]


def _by_layer(heads: list[_Head]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for head in heads:
        table.setdefault(str(head.layer), {})[str(head.index)] = head.accuracy
    return table
