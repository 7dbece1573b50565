"""The `steering` object of a generation request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .fields import Count, Wire

__all__ = ["SteeringFields"]

Documents = Annotated[list[dict[str, Any]], Field(max_length=64)]


class SteeringFields(Wire):
    """How an answer is to be steered.

    Interventions and monitors are the objects that profiles hold; `steering.interventions` reads
    them, so that there is one definition of each.
    """

    profile: Annotated[str, Field(max_length=160)] | None = None
    strength: float | None = None
    interventions: Documents = Field(default_factory=list)
    monitors: Documents = Field(default_factory=list)
    compose: Literal["replace", "add"] = "replace"
    compare: bool = False
    prompt_tokens: Count | Annotated[list[Count], Field(min_length=1, max_length=256)] | None = None
