"""How interventions, gates and monitors name a direction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from steering.errors import InvalidFieldError, short_repr

from .document import refused

NAME_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REFERENCE: Final = re.compile(rf"({NAME_PATTERN.pattern})(?:@([1-9][0-9]{{0,8}}))?")


@dataclass(frozen=True, slots=True)
class DirectionRef:
    """`name` (newest version) or `name@version`."""

    name: str
    version: int | None = None

    @classmethod
    def parse(cls, text: Any, *, param: str = "direction") -> Self:
        """Read `name` or `name@3`.

        Raises:
            InvalidFieldError: Not of that form.
        """
        match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidFieldError(f"{param} {_malformed(text)}", param=param)
        return cls(match[1], None if match[2] is None else int(match[2]))

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


def _malformed(text: Any) -> str:
    return (
        f"is {short_repr(text)}; expected a name of [a-z0-9._-], at most 64 characters, optionally "
        "followed by @version"
    )


def _read(value: Any) -> DirectionRef:
    if isinstance(value, DirectionRef):
        return value
    try:
        return DirectionRef.parse(value)
    except InvalidFieldError:
        raise refused(_malformed(value)) from None


DirectionName = Annotated[
    DirectionRef,
    BeforeValidator(_read),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{_REFERENCE.pattern}$",
            "examples": ["refusal", "refusal@2"],
        }
    ),
]
"""A member that names a direction: `name` for its newest version, or `name@version`."""
