"""Reading fields of a JSON document into typed values, with one form of error."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from .errors import InvalidFieldError, NonFiniteError, shown

__all__ = [
    "check_keys",
    "filled_text",
    "int_list",
    "integer",
    "mapping",
    "member",
    "number",
    "require",
    "seed_number",
    "str_list",
    "text",
    "window_list",
]

_E = TypeVar("_E", bound=StrEnum)


def check_keys(
    document: Mapping[str, Any], known: Collection[str], *, noun: str, prefix: str = ""
) -> None:
    """Check that `document` has no field outside `known`.

    Raises:
        InvalidFieldError: It has; names the field and those known.
    """
    for key in document:
        if key not in known:
            name = f"{key!s:.60}"
            field = prefix + (name if name.isprintable() else shown(name))
            raise InvalidFieldError(
                f"unknown field {field} of {noun}; expected {', '.join(sorted(known))}",
                param=field,
            )


def require(document: Mapping[str, Any], key: str, *, noun: str) -> Any:
    """The value of a field that must be there.

    Raises:
        InvalidFieldError: It is absent or null.
    """
    value = document.get(key)
    if value is None:
        raise InvalidFieldError(f"{noun} has no {key}; it is required", param=key)
    return value


def mapping(value: Any, param: str) -> Mapping[str, Any]:
    """An object.

    Raises:
        InvalidFieldError: Anything else.
    """
    if not isinstance(value, Mapping):
        raise InvalidFieldError(f"{param} is {shown(value)}; expected an object", param=param)
    return value


def text(value: Any, param: str) -> str:
    """A string.

    Raises:
        InvalidFieldError: Anything else.
    """
    if not isinstance(value, str):
        raise InvalidFieldError(f"{param} is {shown(value)}; expected a text", param=param)
    return value


def filled_text(value: Any, param: str) -> str:
    """A string with more than white space.

    Raises:
        InvalidFieldError: Anything else.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidFieldError(
            f"{param} is {shown(value)}; expected a text that is not empty", param=param
        )
    return value


def number(value: Any, param: str) -> float:
    """A finite number.

    Raises:
        InvalidFieldError: Not a number (booleans are not).
        NonFiniteError: NaN or infinity.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFieldError(f"{param} is {shown(value)}; expected a number", param=param)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise NonFiniteError(f"{param} is not finite; expected a finite number", param=param)
    return result


def integer(value: Any, param: str) -> int:
    """An integer.

    Raises:
        InvalidFieldError: Anything else (booleans too).
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidFieldError(f"{param} is {shown(value)}; expected an integer", param=param)
    return value


def seed_number(value: Any, param: str) -> int:
    """The seed of a generator: an integer from 0 to 2^63 - 1, which every library's takes.

    Raises:
        InvalidFieldError: Anything else.
    """
    if not 0 <= integer(value, param) < 2**63:
        raise InvalidFieldError(
            f"{param} is {shown(value)}; expected an integer from 0 to 2^63 - 1", param=param
        )
    return int(value)


def member(kind: type[_E], value: Any, param: str) -> _E:
    """The member of an enumeration that has this value.

    Raises:
        InvalidFieldError: None has; the message lists those there are.
    """
    if value not in list(kind):
        raise InvalidFieldError(
            f"{param} is {shown(value)}; expected one of {', '.join(kind)}", param=param
        )
    return kind(value)


def int_list(value: Any, param: str) -> tuple[int, ...]:
    """A list of integers, a single one, or nothing.

    Raises:
        InvalidFieldError: Anything else.
    """
    items = () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int):
            raise InvalidFieldError(
                f"{param} contains {shown(item)}; expected integers", param=param
            )
    return items


def str_list(value: Any, param: str) -> tuple[str, ...]:
    """A list of strings, a single one, or nothing.

    Raises:
        InvalidFieldError: Anything else.
    """
    items = () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)
    for item in items:
        if not isinstance(item, str):
            raise InvalidFieldError(
                f"{param} contains {shown(item)}; expected strings", param=param
            )
    return items


def window_list(value: Any, param: str) -> tuple[tuple[int, int], ...]:
    """A list of half-open windows `[start, stop]` with 0 <= start < stop.

    Raises:
        InvalidFieldError: Anything else; an empty window is named.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InvalidFieldError(
            f"{param} is {shown(value)}; expected a list of [start, stop] pairs", param=param
        )
    windows = []
    for item in value:
        pair = int_list(item, param)
        if len(pair) != 2 or not 0 <= pair[0] < pair[1]:
            raise InvalidFieldError(
                f"{param} contains {shown(item)}; expected [start, stop] with 0 <= start < stop",
                param=param,
            )
        windows.append((pair[0], pair[1]))
    return tuple(windows)
