"""What every answer of the server is made of: objects and pages of listings."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

__all__ = ["Page", "Record"]

_T = TypeVar("_T")


class Record(BaseModel):
    """A JSON object; fields a newer server adds are kept, not refused."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Page(Record, Generic[_T]):
    """Part of a listing; `next_cursor` gets the next part, None at the end."""

    data: list[_T]
    next_cursor: str | None = None
