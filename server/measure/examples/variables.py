"""Values that a request gives to variables of the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from steering.documents import refused
from steering.errors import short_repr

_MAX_VARIABLES: Final = 16
_MAX_NAME_CHARS: Final = 64
_MAX_CHARS: Final = 1000
_MAX_NUMBER: Final = 1_000_000

VARIABLES_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "maxProperties": _MAX_VARIABLES,
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    "examples": [{"enable_thinking": False}],
}
"""Variables and their values, as a JSON schema."""


def expected_of_variables(value: Any) -> str | None:
    """What is expected of variables and their values where `value` is not that, else None.

    Numbers are bounded because a template may repeat something so many times.
    """
    if not isinstance(value, Mapping) or len(value) > _MAX_VARIABLES:
        return f"an object of at most {_MAX_VARIABLES} members"
    if not all(isinstance(name, str) and len(name) <= _MAX_NAME_CHARS for name in value):
        return f"names of at most {_MAX_NAME_CHARS} characters"
    if not all(map(_is_scalar, value.values())):
        return (
            f"members that are texts of at most {_MAX_CHARS:,} characters, numbers of at most "
            f"{_MAX_NUMBER:,}, true, false or null"
        )
    return None


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_CHARS
    return value is None or (isinstance(value, int | float) and abs(value) <= _MAX_NUMBER)


def _variables(value: Any) -> Any:
    if expected := expected_of_variables(value):
        raise refused(f"is {short_repr(value)}; expected {expected}")
    return value


TemplateVariables = Annotated[
    Mapping[str, Any], BeforeValidator(_variables), WithJsonSchema(VARIABLES_SCHEMA)
]
"""A member of a document: variables of the chat template that its chats are rendered with."""
