"""Types of members that documents share: JSON's own, without conversions between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

from steering.errors import InvalidFieldError, NonFiniteError, UnknownSiteError, short_repr
from steering.sites import Site

from .document import refused

_BOUNDS: Final = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}

Number = Annotated[float, Strict()]
"""A finite number; a boolean is none."""

Integer = Annotated[int, Strict()]
"""An integer; 1.0 and true are none."""

Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]


@dataclass(frozen=True, slots=True)
class Within:
    """Says in words which numbers the bounds of a member allow.

    Attributes:
        words: What was expected, such as `a number in (0, 1]`.
        is_whole: Whether what is no number of that type is refused in these words too.
    """

    words: str
    is_whole: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The member's own schema, with its refusals put into words."""
        return core_schema.no_info_wrap_validator_function(self._check, handler(source))

    def _check(self, value: Any, handler: core_schema.ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            kind = error.errors()[0]["type"]
            if kind in _BOUNDS and not self.is_whole:
                raise refused(f"is {value:g}; expected {self.words}") from None
            if self.is_whole and kind != InvalidFieldError.code:  # else it is in words already
                raise refused(f"is {short_repr(value)}; expected {self.words}") from None
            raise


@dataclass(frozen=True, slots=True)
class ListOf:
    """Says in words what a list holds, where something else than a list is given."""

    words: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The member's own schema, after a look at its form."""
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise refused(f"is {short_repr(value)}; expected a list of {self.words}")
        return value


def listed(value: Any) -> Any:
    """A list as it is; anything else as a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _site(value: Any) -> Site:
    try:
        return Site(value)
    except ValueError:
        raise refused(
            f"is {short_repr(value)}; expected one of {', '.join(Site)}", UnknownSiteError.code
        ) from None


_NUMBERS: Final = TypeAdapter(list[Annotated[float, Strict(), AllowInfNan(False)]])


def read_numbers(values: Any, param: str) -> list[float]:
    """A list of finite numbers.

    Raises:
        InvalidFieldError: An item is no number (booleans are none); `param` names the list.
        NonFiniteError: One is NaN or infinite.
    """
    try:
        return _NUMBERS.validate_python(list(values))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        if found["type"] == "finite_number" or type(found["input"]) is int:
            message = f"{param} is not finite; expected a finite number"
            raise NonFiniteError(message, param=param) from None
        raise InvalidFieldError(
            f"{param} is {short_repr(found['input'])}; expected a number", param=param
        ) from None


SiteName = Annotated[Site, BeforeValidator(_site)]
"""A site by its name."""

Texts = Annotated[
    tuple[Text, ...], BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...])
]
"""A list of texts, or a single one."""

Layers = Annotated[
    tuple[Integer, ...], BeforeValidator(listed, json_schema_input_type=int | tuple[int, ...])
]
"""Layers (0-based), one or a list."""


def _seed(value: int) -> int:
    if not 0 <= value < 2**63:
        raise refused(f"is {short_repr(value)}; expected an integer from 0 to 2^63 - 1")
    return value


Seed = Annotated[
    Integer,
    AfterValidator(_seed),
    Field(json_schema_extra={"minimum": 0, "exclusiveMaximum": 2**63}),
]
"""The seed of a generator, which every library's takes."""
