"""The base of everything the server answers with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Record"]


class Record(BaseModel):
    """A JSON object; fields a newer server adds are kept, not refused."""

    model_config = ConfigDict(extra="allow", frozen=True)
