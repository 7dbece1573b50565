from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steering.directions import DirectionKind
from steering.errors import InvalidFieldError, LayerOutOfRangeError, SteeringError
from steering.formats import from_repeng
from steering.sites import Site


def test_keys_are_block_outputs_and_negative_ones_count_from_the_last() -> None:
    directions = {i: np.full(4, i, dtype=np.float64) for i in (-1, -2, 1)}
    direction = from_repeng(directions, "v", num_layers=6, model_fingerprint="f")
    assert (direction.kind, direction.site) == (DirectionKind.VECTOR, Site.RESID_POST)
    assert direction.layers == (1, 4, 5)
    assert {layer: direction.at(layer)["vector"][0].item() for layer in direction.layers} == {
        1: 1.0,
        4: -2.0,
        5: -1.0,
    }
    assert direction.model_fingerprint == "f"


def test_the_arrays_are_copied() -> None:
    vector = np.ones(3, dtype=np.float32)
    direction = from_repeng({1: vector}, "v", num_layers=2)
    vector[:] = 7
    assert direction.at(1)["vector"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("directions", "error", "message"),
    [
        ({6: np.ones(3)}, LayerOutOfRangeError, "layer 6"),
        ({-7: np.ones(3)}, LayerOutOfRangeError, "layer -7"),
        ({5: np.ones(3), -1: np.ones(3)}, InvalidFieldError, "layer 5 twice"),
        ({"1": np.ones(3)}, InvalidFieldError, "expected layers"),
        ({True: np.ones(3)}, InvalidFieldError, "expected layers"),
        ({}, LayerOutOfRangeError, "empty"),
        ({1: np.ones((2, 3))}, SteeringError, "shape"),
        ({1: np.full(3, np.nan)}, SteeringError, "NaN"),
        ({1: np.ones(3), 2: np.ones(4)}, SteeringError, "width"),
    ],
)
def test_unusable_directions(
    directions: dict[Any, np.ndarray], error: type[SteeringError], message: str
) -> None:
    with pytest.raises(error, match=message):
        from_repeng(directions, "v", num_layers=6)
