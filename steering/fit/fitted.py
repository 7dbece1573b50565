"""From float64 results to a stored direction that says how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.errors import FitError
from steering.sites import Site

from .activations import ActivationPair


def fitted_direction(
    kind: DirectionKind,
    pair: ActivationPair,
    tensors: Mapping[str, Tensor],
    *,
    method: str,
    name: str,
    layer: int,
    site: Site,
    model_fingerprint: str | None,
    **details: Any,
) -> Direction:
    """A direction of one layer, in float32, with its method, counts, data hash and `details`."""
    return Direction(
        name=name,
        kind=kind,
        site=site,
        layers=(layer,),
        tensors={key: tensor.to(torch.float32) for key, tensor in tensors.items()},
        model_fingerprint=model_fingerprint,
        provenance={
            "method": method,
            "num_positive": len(pair.target),
            "num_negative": len(pair.source),
            "data_sha256": pair.digest,
            **details,
        },
    )


def require_gap(pair: ActivationPair) -> None:
    """Check that the means of the two sets differ.

    Raises:
        FitError: They do not.
    """
    gap = float(pair.shift.norm())
    if gap < MIN_NORM:
        raise FitError(
            f"the means of positive and negative differ by {gap:.3g}; expected at least "
            f"{MIN_NORM:g}",
            param="positive",
        )


def combine_layers(directions: Sequence[Direction], *, name: str) -> Direction:
    """One direction with a set of tensors for each layer, from directions of one layer each.

    Provenance becomes `{"layers": {layer: provenance}}`. A map fitted at a later layer while the
    earlier one was off counts the earlier shift twice; refit it with the earlier one acting.

    Raises:
        FitError: None given, or they differ in kind, site, model or required scopes, or share a
            layer.
    """
    if not directions:
        raise FitError("directions is empty; expected one for each layer", param="directions")
    first = directions[0]
    by_layer = {direction.layers[0]: direction for direction in directions}
    taken = Counter(layer for direction in directions for layer in direction.layers)
    for index, direction in enumerate(directions):
        if len(direction.layers) != 1 or taken[direction.layers[0]] > 1:
            raise FitError(
                f"direction {index} is stored for layers {list(direction.layers)}; expected one "
                "layer, which no other has",
                param="directions",
            )
        for field in ("kind", "site", "model_fingerprint", "requires"):
            if getattr(direction, field) != getattr(first, field):
                raise FitError(
                    f"direction {index} differs from the first in {field}; expected equal ones",
                    param="directions",
                )
    layers = tuple(sorted(by_layer))
    return Direction(
        name=name,
        kind=first.kind,
        site=first.site,
        layers=layers,
        tensors={
            f"{key.removesuffix(f'.{layer}')}.{layer}": tensor
            for layer in layers
            for key, tensor in by_layer[layer].tensors.items()
        },
        model_fingerprint=first.model_fingerprint,
        requires=first.requires,
        provenance={"layers": {str(layer): dict(by_layer[layer].provenance) for layer in layers}},
    )
