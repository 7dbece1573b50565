"""The base of wire models, and how a document becomes one with a single, named error."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from server.api.http.errors import (
    InvalidParameterError,
    MissingParameterError,
    RequestError,
    UnknownParameterError,
    UnsupportedParameterError,
)
from steering.errors import SteeringError

UNSUPPORTED: Final = "unsupported_parameter"
"""Type of a validator's error that becomes `UnsupportedParameterError`."""

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A number of tokens."""

_M = TypeVar("_M", bound="Wire")


class SchemaOf:
    """Shows a member in schemas as a document that is read elsewhere."""

    def __init__(self, document: Any) -> None:
        """Args: document: a model, or a union of some."""
        self._document = document

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        del schema
        return handler(TypeAdapter(self._document).core_schema)


class Wire(BaseModel):
    """A strict model of one JSON object: no coercion, no unknown fields, finite numbers."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def read(model: type[_M], document: Mapping[str, Any], *, under: str = "") -> _M:
    """`document`, which stands in the field `under`, as a `model`; null members count as absent.

    Raises:
        RequestError: The first problem, naming its field and not repeating its value.
        SteeringError: It is a problem of a document within, such as an intervention.
    """
    given = {name: value for name, value in document.items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = _refusal(error, model)
        raise (found.under(under) if under else found) from None
    except RequestError as error:
        raise (error.under(under) if under else error) from None


def _refusal(error: ValidationError, model: type[Wire]) -> RequestError | SteeringError:
    problem = error.errors(include_url=False, include_input=False)[0]
    param, cause = _path(problem["loc"]), problem.get("ctx", {}).get("error")
    if isinstance(cause, SteeringError):  # of a document within
        return cause.under(param)
    known = [str(field.alias or name) for name, field in model.model_fields.items()]
    return _error(problem["type"], problem["msg"], param, known)


def _error(kind: str, message: str, param: str, known: Collection[str]) -> RequestError:
    if kind == "missing":
        return MissingParameterError(f"{param} is missing; it is required", param=param)
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(param, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return UnknownParameterError(f"{param} is not a known parameter{hint}", param=param)
    text = message.removeprefix("Value error, ")
    if kind == UNSUPPORTED:
        return UnsupportedParameterError(f"{param}: {text}", param=param)
    return InvalidParameterError(f"{param}: {text}", param=param or None)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = part[:64]
            path += f".{name}" if path else name
    return path
