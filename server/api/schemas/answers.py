"""What answers have in common: their base, pages, times, failures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from server.store import Page as Found

_A = TypeVar("_A", bound="Answer")
_R = TypeVar("_R")


class Answer(BaseModel):
    """A JSON object that the server answers with; every member is always there."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    @classmethod
    def of(cls, record: Any, **more: Any) -> Self:
        """Make an answer of a record's attributes that members are named after, and of `more`."""
        names = [name for name in cls.model_fields if hasattr(record, name)]
        return cls.model_validate({**{name: getattr(record, name) for name in names}, **more})


class Generated(BaseModel):
    """What an answer of the model begins with.

    Answers of the model are put together as dictionaries, because a stream makes one for every
    token; their models say what these hold, and tests hold one against the other. A member with a
    default may be absent.
    """

    id: str = Field(examples=["chatcmpl-0123456789abcdef0123456789abcdef"])
    object: str
    created: int = Field(description="Unix seconds.", examples=[1764442800])
    model: str = Field(examples=["coxswain-chat"])
    system_fingerprint: str = Field(
        description="Of the model's weights.", examples=["fp_d85b9df794c9313c"]
    )


def _seconds(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


Seconds = Annotated[int, BeforeValidator(_seconds)]
"""A time as the OpenAI API writes it: Unix seconds."""

Moment = Annotated[
    str, BeforeValidator(_text), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""A time to the microsecond, in ISO 8601."""


class Page(Answer, Generic[_A]):
    """A page of a listing."""

    object: Literal["list"] = "list"
    data: list[_A]
    has_more: bool = Field(examples=[False])
    next_cursor: str | None = Field(
        description="Gets the next page, as `cursor`; null at the end.", examples=[None]
    )

    @classmethod
    def listing(cls, found: Found[_R], write: Callable[[_R], _A]) -> Self:
        """A page of records, each written by `write`."""
        return cls(
            data=[write(item) for item in found.items],
            has_more=found.next_cursor is not None,
            next_cursor=found.next_cursor,
        )


class _Problem(BaseModel):
    message: str | None = None
    param: str | None = None
    code: str | None = None
    used_by: str | None = Field(default=None, description="What uses that which was to go.")


class _Error(BaseModel):
    message: str = Field(description="What is wrong, what was expected, and how to mend it.")
    type: Literal[
        "authentication_error",
        "invalid_request_error",
        "permission_error",
        "rate_limit_error",
        "server_error",
        "service_unavailable_error",
    ]
    param: str | None = Field(description="The field at fault, such as `steering.strength`.")
    code: str = Field(description="Stable; docs/reference.md lists them all.")
    problems: list[_Problem] = Field(
        default=[], description="Where several things are wrong or in the way: all of them."
    )


class Failure(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {
                    "message": "model: Input should be a valid string",
                    "type": "invalid_request_error",
                    "param": "model",
                    "code": "invalid_value",
                }
            }
        }
    )

    error: _Error
