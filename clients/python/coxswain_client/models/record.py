"""What every answer of the server is made of: objects and pages of listings."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

_T = TypeVar("_T")


class Record(BaseModel):
    """A JSON object; fields a newer server adds are kept, not refused."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Generated(Record):
    """What an answer of the model begins with; `created` in Unix seconds."""

    id: str | None = None
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None


class Page(Record, Generic[_T]):
    """Part of a listing; `next_cursor` gets the next part, None at the end."""

    data: list[_T]
    has_more: bool = False
    next_cursor: str | None = None
