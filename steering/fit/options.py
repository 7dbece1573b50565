"""The options of a fitter, read from its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from pydantic import AllowInfNan, TypeAdapter
from torch import Tensor

from steering.documents import Number, read_at
from steering.errors import InvalidFieldError, short_repr

from .number_range import NumberRange

# Where a direction belongs, and facts of the model: given by the caller, not chosen.
_PLACE: Final = frozenset({"layer", "model_fingerprint", "name", "num_heads", "site"})
_TYPES: Final = {bool: "boolean", float: "number", int: "integer", Tensor: "vector"}


_NUMBER: Final[TypeAdapter[float]] = TypeAdapter(Annotated[Number, AllowInfNan(False)])


@dataclass(frozen=True, slots=True)
class Option:
    """A keyword argument of a fitter.

    Attributes:
        name: Its name.
        type: `boolean`, `integer`, `number`, `string` or `vector` (a tensor [d], which a job
            takes from a stored direction).
        default: Its default.
        choices: Values of a `string`.
        is_nullable: Whether None is allowed.
        range: Of a number, or None where any will do.
    """

    name: str
    type: str
    default: Any
    choices: tuple[str, ...] = ()
    is_nullable: bool = False
    range: NumberRange | None = None

    def checked(self, value: Any) -> Any:
        """The value, if it is of the option's type and within its range.

        Raises:
            InvalidFieldError: It is not; NaN and infinity are not numbers here.
        """
        param = f"options.{self.name}"
        if value is None and self.is_nullable:
            return None
        if self.type == "number":
            value = read_at(_NUMBER, value, param)
        else:
            self._check_type(value, param)
        if self.range is not None:
            self.range.check(value, param)
        return value

    def _check_type(self, value: Any, param: str) -> None:
        fits = {
            "boolean": isinstance(value, bool),
            "integer": isinstance(value, int) and not isinstance(value, bool),
            "string": value in self.choices if isinstance(value, str) else False,
            "vector": isinstance(value, Tensor),
        }[self.type]
        if not fits:
            expected = " or ".join(map(repr, self.choices)) if self.choices else f"type {self.type}"
            raise InvalidFieldError(
                f"{param} is {short_repr(value)}; expected {expected}", param=param
            )


def options_of(fitter: Callable[..., Any]) -> tuple[Option, ...]:
    """Its keyword-only arguments that say how, not where; in order."""
    hints = get_type_hints(fitter, include_extras=True)
    return tuple(
        _option(name, hints[name], parameter.default)
        for name, parameter in inspect.signature(fitter).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in _PLACE
    )


def _option(name: str, hint: Any, default: Any) -> Option:
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)
        return replace(_option(name, hint, default), range=bounds)
    if get_origin(hint) is Literal:
        return Option(name, "string", default, choices=get_args(hint))
    kinds = [part for part in get_args(hint) if part is not NoneType] or [hint]
    return Option(name, _TYPES[kinds[0]], default, is_nullable=NoneType in get_args(hint))
