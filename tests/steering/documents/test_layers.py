from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.documents import STORED, LayerRange, parse_layers, resolve_layers
from steering.errors import InvalidFieldError, LayerOutOfRangeError, SteeringError


def test_forms() -> None:
    assert parse_layers(None) == parse_layers("stored") == STORED
    assert parse_layers([3, 0]) == (3, 0)
    assert parse_layers(2) == (2,)
    assert parse_layers({"from": 0, "to": 0.5}) == LayerRange.between(0.0, 0.5)


@pytest.mark.parametrize(
    ("value", "error", "param"),
    [
        ([], LayerOutOfRangeError, "layers"),
        ([1, 1], InvalidFieldError, "layers"),
        ([1.0], InvalidFieldError, "layers"),
        ([True], InvalidFieldError, "layers"),
        ("all", InvalidFieldError, "layers"),
        (1.5, InvalidFieldError, "layers"),
        ({"from": 0.5}, InvalidFieldError, "layers.to"),
        ({"to": 0.5}, InvalidFieldError, "layers.from"),
        ({"from": 0.5, "to": None}, InvalidFieldError, "layers.to"),
        ({"from": "0", "to": 1}, InvalidFieldError, "layers.from"),
        ({"from": 0, "to": float("nan")}, SteeringError, "layers.to"),
        ({"from": 0, "to": 1, "step": 2}, InvalidFieldError, "layers.step"),
        ({"from": 0.6, "to": 0.4}, InvalidFieldError, "layers"),
        ({"from": -0.1, "to": 0.4}, InvalidFieldError, "layers"),
        ({"from": 0, "to": 1.1}, InvalidFieldError, "layers"),
    ],
)
def test_bad_selections_name_the_field(value: Any, error: type[SteeringError], param: str) -> None:
    with pytest.raises(error) as caught:
        parse_layers(value)
    assert caught.value.param == param


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(0, 80), st.integers(0, 80))
def test_a_range_is_closed_in_relative_depth(num_layers: int, first: int, last: int) -> None:
    first, last = sorted((first % (num_layers + 1), last % (num_layers + 1)))
    selection = LayerRange.between(first / num_layers, last / num_layers)
    depths = [layer for layer in range(num_layers) if first <= layer + 1 <= last]
    if depths:
        assert resolve_layers(selection, (0,), num_layers) == tuple(depths)
    else:
        with pytest.raises(LayerOutOfRangeError, match="holds none"):
            resolve_layers(selection, (0,), num_layers)


def test_the_whole_and_the_middle() -> None:
    assert resolve_layers(LayerRange.between(0.0, 1.0), (), 4) == (0, 1, 2, 3)
    assert resolve_layers(LayerRange.between(0.4, 0.6), (), 5) == (1, 2)
    assert resolve_layers(LayerRange.between(0.0, 0.1), (), 10) == (0,)


def test_lists_are_sorted_and_stored_is_stored() -> None:
    assert resolve_layers((5, 2), (1,), 6) == (2, 5)
    assert resolve_layers(STORED, (1, 4), 6) == (1, 4)
    for selection, stored in (((6,), (0,)), ((-1,), (0,)), (STORED, (6,))):
        with pytest.raises(LayerOutOfRangeError, match="layers 0 to 5") as caught:
            resolve_layers(selection, stored, 6)  # type: ignore[arg-type]
        assert caught.value.param == "layers"
