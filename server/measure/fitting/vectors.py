"""Vectors of stored directions that a method takes as options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.measure.directions import RequestDirections
from steering.direction_ref import DirectionRef
from steering.directions import Direction, DirectionKind
from steering.errors import IncompatibleOperationError, ShapeMismatchError
from steering.fit import Method

__all__ = ["stored_vectors"]


def stored_vectors(
    options: Mapping[str, Any], method: Method, width: int, directions: RequestDirections
) -> dict[str, Direction]:
    """The direction of every option that names one, by option.

    Raises:
        InvalidFieldError: An option is not a reference.
        IncompatibleOperationError: A direction is not of one vector.
        ShapeMismatchError: Its vector has not `width` numbers.
        PermissionDeniedError, StoreError: As `RequestDirections.derive`.
    """
    return {
        name: _vector(options[name], f"options.{name}", width, directions)
        for name, option in method.options.items()
        if option.type == "vector" and name in options
    }


def _vector(value: Any, param: str, width: int, directions: RequestDirections) -> Direction:
    direction = directions.derive(DirectionRef.parse(value, param=param), param)
    if direction.kind is not DirectionKind.VECTOR or direction.is_per_layer:
        raise IncompatibleOperationError(
            f"{param} is {direction.reference}, of kind {direction.kind.value!r}; expected a "
            "direction with one vector",
            param=param,
        )
    if direction.width != width:
        raise ShapeMismatchError(
            f"{param} is {direction.reference}, a vector of {direction.width} numbers; the site "
            f"has {width}",
            param=param,
        )
    return direction
