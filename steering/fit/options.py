"""The options of a fitter, as a document made from its signature, and the numbers they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from types import NoneType
from typing import Annotated, Any, ClassVar, Final, Literal, get_args, get_origin, get_type_hints

from pydantic import (
    AllowInfNan,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from torch import Tensor

from steering.documents import Document, Within
from steering.documents.reference import DirectionName
from steering.errors import InvalidFieldError

# Where a direction belongs, and facts of the model: given by the caller, not chosen.
_PLACE: Final = frozenset({"layer", "model_fingerprint", "name", "num_heads", "site"})
_TYPES: Final = {bool: "boolean", float: "number", int: "integer", Tensor: "vector"}

_FINITE: Final = AllowInfNan(False)


def _drop_default(schema: dict[str, Any]) -> None:
    del schema["default"]


# A job names a stored direction in place of a tensor, or leaves the option out.
_VECTOR: Final = (
    WithJsonSchema(TypeAdapter(DirectionName).json_schema()),
    Field(json_schema_extra=_drop_default),
)

Positive = Annotated[float, Strict(), _FINITE, Field(gt=0), Within("a number above 0")]
PositiveInteger = Annotated[
    int,
    Strict(),
    Field(gt=0),
    Within("a number above 0"),
    Within("type integer", is_whole=True),
]
NotNegative = Annotated[float, Strict(), _FINITE, Field(ge=0), Within("a number of at least 0")]
AtLeastOne = Annotated[float, Strict(), Field(ge=1), Within("a number of at least 1")]
UnitInterval = Annotated[
    float, Strict(), _FINITE, Field(ge=0, le=1), Within("a number from 0 to 1")
]
OpenUnitInterval = Annotated[
    float, Strict(), _FINITE, Field(gt=0, lt=1), Within("a number between 0 and 1")
]


def check_number(numbers: Any, value: float, param: str) -> None:
    """Check an argument against the annotated type of its parameter, such as `Positive`.

    Raises:
        InvalidFieldError: It is not one of these numbers.
    """
    try:
        _reader(numbers).validate_python(value)
    except ValidationError:
        words = _range(numbers.__metadata__)
        raise InvalidFieldError(f"{param} is {value:g}; expected {words}", param=param) from None


@cache
def _reader(numbers: Any) -> TypeAdapter[Any]:
    return TypeAdapter(numbers)


class MethodOptions(Document):
    """Options of a fitter. The model of each has one member for each of them, in its order.

    An option that is a tensor [d] is of type `vector`; a job takes it from a stored direction.
    """

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    prefix: ClassVar[str] = "options."
    null_is_absent: ClassVar[bool] = False

    @classmethod
    def types(cls) -> dict[str, str]:
        """`boolean`, `integer`, `number`, `string` or `vector`, by option."""
        return {name: _type(field.annotation) for name, field in cls.model_fields.items()}

    @classmethod
    def ranges(cls) -> dict[str, str]:
        """Which numbers are allowed, in words, by option; options that take any are left out."""
        found = {name: _range(field.metadata) for name, field in cls.model_fields.items()}
        return {name: words for name, words in found.items() if words is not None}


def options_of(fitter: Callable[..., Any], noun: str) -> type[MethodOptions]:
    """The model of a fitter's keyword-only arguments that say how, not where; in order."""
    hints = get_type_hints(fitter, include_extras=True)
    members: dict[str, Any] = {
        name: (_member(hints[name]), parameter.default)
        for name, parameter in inspect.signature(fitter).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in _PLACE
    }
    model = create_model("MethodOptions", __base__=MethodOptions, **members)
    model.noun = noun
    return model


def _member(hint: Any) -> Any:
    """The type of an option, which refuses values of another type in words of its own."""
    if get_origin(hint) is Annotated:
        return hint
    words = f"type {_type(hint)}"
    if get_origin(hint) is Literal:
        words = " or ".join(map(repr, get_args(hint)))
    option = Annotated[hint, Within(words, is_whole=True)]
    return Annotated[option, *_VECTOR] if _type(hint) == "vector" else option


def _type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "string"
    kinds = [part for part in get_args(hint) if part is not NoneType] or [hint]
    return _TYPES[kinds[0]]


def _range(metadata: Any) -> str | None:
    return next((m.words for m in metadata if isinstance(m, Within) and not m.is_whole), None)
