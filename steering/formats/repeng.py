"""repeng's control vectors as they are in memory: one array for each layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from steering.directions import Direction, DirectionKind
from steering.errors import InvalidFieldError, LayerOutOfRangeError
from steering.sites import Site


def from_repeng(
    directions: Mapping[int, NDArray[np.floating]],
    name: str,
    *,
    num_layers: int,
    model_fingerprint: str | None = None,
) -> Direction:
    """Read `ControlVector.directions` as a per-layer set of vectors at `resid_post`.

    repeng adds entry i to the output of block i, so i >= 0 is `resid_post[i]`; negative entries
    count from the last block: -1 is `resid_post[num_layers - 1]`. Vectors are kept as they are
    (repeng's are of unit length); values are rounded to float32.

    repeng reads its training activations from `hidden_states[i + 1]`, which for the last block
    is the state *after* the final norm. Its vector there was fitted at another site than it is
    added to, in repeng as here; leave it out when in doubt.

    Raises:
        InvalidFieldError: An entry is not an integer, or two name one layer.
        LayerOutOfRangeError: An entry the model does not have.
        SteeringError: A vector is empty, not finite, zero or of another width; see `Direction`.
    """
    vectors: dict[int, NDArray[np.floating]] = {}
    for key, vector in directions.items():
        if isinstance(key, bool) or not isinstance(key, int):
            raise InvalidFieldError(f"directions has key {key!r}; expected layers", param="layers")
        layer = key if key >= 0 else num_layers + key
        if not 0 <= layer < num_layers:
            raise LayerOutOfRangeError(
                f"directions has layer {key}; the model has layers {-num_layers} to "
                f"{num_layers - 1}",
                param="layers",
            )
        if layer in vectors:
            raise InvalidFieldError(f"directions names layer {layer} twice", param="layers")
        vectors[layer] = vector
    return Direction(
        name=name,
        kind=DirectionKind.VECTOR,
        site=Site.RESID_POST,
        layers=tuple(sorted(vectors)),
        tensors={
            f"vector.{layer}": torch.from_numpy(np.array(vector, dtype=np.float32))
            for layer, vector in vectors.items()
        },
        model_fingerprint=model_fingerprint,
        provenance={"source_format": "repeng"},
    )
