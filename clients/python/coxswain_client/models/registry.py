"""What the server's registry holds: directions, profiles, aliases."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .record import Record

__all__ = ["Alias", "Archived", "Direction", "PlanReport", "Profile"]


class Direction(Record):
    """A version of a direction, without its tensors."""

    name: str
    version: int
    kind: str
    site: str
    layers: list[int]
    width: int
    norms: dict[str, float]
    sha256: str
    model_fingerprint: str | None = None
    requires: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    provenance: dict[str, Any] = Field(default_factory=dict)


class Profile(Record):
    """A version of a profile."""

    name: str
    version: int
    status: str
    description: str = ""
    interventions: list[dict[str, Any]]
    monitors: list[dict[str, Any]] = Field(default_factory=list)
    requires: list[str] = Field(default_factory=list)
    max_strength: float


class PlanReport(Record):
    """What a profile would do on the loaded model: the result of a dry run."""

    is_valid: bool
    fingerprint: str
    interventions: list[dict[str, Any]]


class Alias(Record):
    """A name that points to a profile, and may be moved."""

    alias: str
    profile: str


class Archived(Record):
    """Versions a deletion took out of use; what they hold stays stored."""

    name: str
    versions: list[int]
