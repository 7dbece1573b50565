"""What the server's registry holds: directions, profiles, aliases."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .record import Record


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
    reference: str | None = None
    size_bytes: int | None = None
    digest: str | None = None
    is_available: bool = True
    model_fingerprint: str | None = None
    requires: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    provenance: dict[str, Any] = Field(default_factory=dict)
    created_at: int | None = None
    created_by: str | None = None
    archived_at: int | None = None


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
    reference: str | None = None
    directions: list[str] = Field(default_factory=list)
    unavailable: list[str] = Field(default_factory=list)
    fingerprint: str | None = None
    model_fingerprint: str | None = None
    resid_norms: dict[str, float] = Field(default_factory=dict)
    created_at: int | None = None
    created_by: str | None = None
    published_at: int | None = None
    archived_at: int | None = None


class PlanReport(Record):
    """What a profile would do on the loaded model: the result of a dry run.

    Attributes:
        dose: Length of all pushes over all layers, in mean residual norms; None without any.
        warnings: What is likely not meant.
    """

    is_valid: bool
    fingerprint: str
    interventions: list[dict[str, Any]]
    dose: float | None = None
    warnings: list[str] = Field(default_factory=list)
    name: str | None = None
    model_fingerprint: str | None = None
    monitors: list[dict[str, Any]] = Field(default_factory=list)


class Alias(Record):
    """A name that points to a profile, and may be moved."""

    alias: str
    profile: str
    created_at: int | None = None
    updated_at: int | None = None
    updated_by: str | None = None


class Archived(Record):
    """Versions a deletion took out of use; what they hold stays stored."""

    name: str
    versions: list[int]
