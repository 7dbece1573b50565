"""Which layers an intervention acts at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from .errors import InvalidFieldError, LayerOutOfRangeError
from .fields import check_keys, int_list, number, require, shown

__all__ = ["STORED", "LayerRange", "LayerSelection", "parse_layers", "resolve_layers"]

STORED: Final = "stored"


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Layers l with start <= (l + 1) / L <= stop: a closed range of relative depth in [0, 1]."""

    start: float
    stop: float


LayerSelection = tuple[int, ...] | LayerRange | Literal["stored"]


def parse_layers(value: Any) -> LayerSelection:
    """Read `[0, 3]`, `3`, `{"from": 0.4, "to": 0.6}` or `"stored"`; nothing means `"stored"`.

    Raises:
        InvalidFieldError: Anything else.
        LayerOutOfRangeError: An empty list.
    """
    if value is None or value == STORED:
        return STORED
    if isinstance(value, Mapping):
        check_keys(value, {"from", "to"}, noun="a layer range", prefix="layers.")
        ends = [number(_end(value, key), f"layers.{key}") for key in ("from", "to")]
        if not 0.0 <= ends[0] <= ends[1] <= 1.0:
            raise InvalidFieldError(
                f"layers is from {ends[0]:g} to {ends[1]:g}; expected 0 <= from <= to <= 1",
                param="layers",
            )
        return LayerRange(ends[0], ends[1])
    if isinstance(value, str):
        raise InvalidFieldError(
            f"layers is {shown(value)}; expected a list of layers, "
            '{"from": 0.4, "to": 0.6} or "stored"',
            param="layers",
        )
    layers = int_list(value, "layers")
    if not layers:
        raise LayerOutOfRangeError("layers is empty; expected at least one layer", param="layers")
    if len(set(layers)) != len(layers):
        raise InvalidFieldError(
            f"layers is {shown(list(layers))}; expected each layer once", param="layers"
        )
    return layers


def _end(value: Mapping[str, Any], key: str) -> Any:
    try:
        return require(value, key, noun="a layer range")
    except InvalidFieldError as error:
        raise error.under("layers") from None


def resolve_layers(
    selection: LayerSelection, stored: tuple[int, ...], num_layers: int
) -> tuple[int, ...]:
    """The layers meant, ascending.

    Raises:
        LayerOutOfRangeError: A layer the model does not have, or a range that holds none.
    """
    if isinstance(selection, LayerRange):
        layers = tuple(
            layer
            for layer in range(num_layers)
            # 1e-9: 0.6 of 5 layers must hold layer 2 although 3 / 5 > 0.6 in floating point
            if selection.start - 1e-9 <= (layer + 1) / num_layers <= selection.stop + 1e-9
        )
        if not layers:
            raise LayerOutOfRangeError(
                f"layers from {selection.start:g} to {selection.stop:g} holds none of the "
                f"{num_layers} layers; a layer l counts as (l + 1) / {num_layers}",
                param="layers",
            )
        return layers
    layers = stored if selection == STORED else tuple(sorted(selection))
    for layer in layers:
        if not 0 <= layer < num_layers:
            raise LayerOutOfRangeError(
                f"layers contains {layer}; the model has layers 0 to {num_layers - 1}",
                param="layers",
            )
    return layers
