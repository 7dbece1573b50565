"""Directions fitted layer by layer, put together into one set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steering.directions import Direction
from steering.errors import FitError

__all__ = ["combine_layers"]


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
