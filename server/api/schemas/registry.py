"""Directions, profiles and aliases: what is sent to change them, and what they are answered as."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field

from server.registry.upload import DirectionDocument, DirectionMetadata
from server.store import AliasRecord, ProfileRecord, ProfileStatus
from steering.directions import DirectionKind
from steering.documents import AnyIntervention, Monitor
from steering.sites import Site

from .answers import Answer, Seconds
from .fields import SchemaOf, Wire
from .steering import AppliedIntervention

_Name = Annotated[str, Field(max_length=256)]
_AXIS: Final[list[Any]] = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


class DirectionUploadBody(DirectionDocument):
    """A direction with its tensors."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "first-axis",
                "kind": "vector",
                "site": "resid_post",
                "layers": [2],
                "tensors": {"vector": _AXIS},
            }
        }
    )


class DirectionForm(Wire):
    """A direction as a file, with what the file does not say itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"file": "...", "metadata": {"name": "kind", "tags": ["copied"]}}
        }
    )

    file: Annotated[
        str,
        Field(
            description="A safetensors file or a GGUF control vector.",
            json_schema_extra={"contentMediaType": "application/octet-stream"},
        ),
    ]
    metadata: DirectionMetadata


class Direction(Answer):
    """A version of a direction, without its tensors."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "steering.direction",
                "name": "first-axis",
                "version": 1,
                "reference": "first-axis@1",
                "kind": "vector",
                "site": "resid_post",
                "layers": [2],
                "width": 8,
                "norms": {"vector": 1.0},
                "sha256": "5d41" * 16,
                "size_bytes": 232,
                "digest": "7c9e" * 16,
                "model_fingerprint": None,
                "requires": [],
                "provenance": {},
                "tags": [],
                "is_available": True,
                "created_at": 1764442800,
                "created_by": None,
                "archived_at": None,
            }
        }
    )

    object: Literal["steering.direction"] = "steering.direction"
    name: str
    version: int
    reference: str
    kind: DirectionKind
    site: Site
    layers: list[int]
    width: int
    norms: dict[str, float] = Field(description="L2 norm of each tensor as it is stored.")
    sha256: str = Field(description="Of the file that holds the tensors.")
    size_bytes: int
    digest: str = Field(description="Of kind, site, layers and tensors.")
    model_fingerprint: str | None
    requires: list[str]
    provenance: dict[str, Any]
    tags: list[str]
    is_available: bool = Field(description="False once its file was found damaged.")
    created_at: Seconds
    created_by: str | None
    archived_at: Seconds | None


class StoredDirection(Direction):
    """What came of an upload."""

    warnings: list[str]


class DirectionsArchived(Answer):
    """Versions that were taken out of use."""

    object: Literal["steering.direction.archived"] = "steering.direction.archived"
    name: str
    versions: list[int]


class ProfileDraft(Wire):
    """A profile to check or save; its parts are read by `steering.profiles`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "brisk",
                "interventions": [
                    {"operation": "add", "direction": "formal", "unit": "resid", "strength": 0.1}
                ],
                "publish": True,
            }
        }
    )

    name: _Name
    description: str = ""
    interventions: list[Annotated[Any, SchemaOf(AnyIntervention)]] = Field(default_factory=list)
    monitors: list[Annotated[Any, SchemaOf(Monitor)]] = Field(default_factory=list)
    requires: list[str] = Field(default_factory=list)
    max_strength: float | None = None
    publish: bool = False

    def document(self) -> dict[str, Any]:
        """What `Profile.from_dict` reads."""
        return self.model_dump(exclude={"name", "publish"}, exclude_none=True)


class Profile(Answer):
    """A version of a profile."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "steering.profile",
                "name": "brisk",
                "version": 1,
                "reference": "brisk@1",
                "status": "published",
                "description": "",
                "interventions": [
                    {
                        "operation": "add",
                        "direction": "formal@1",
                        "layers": "stored",
                        "strength": 0.1,
                        "unit": "resid",
                        "scope": {"tokens": "all"},
                    }
                ],
                "monitors": [],
                "requires": [],
                "max_strength": 1.5,
                "directions": ["formal@1"],
                "unavailable": [],
                "fingerprint": "732e4f7ba0ad2eddbcf235b1ea3513e9",
                "model_fingerprint": "d85b9df794c9313c8a7a6184e169cabe",
                "resid_norms": {"resid_post.1": 9.5},
                "created_at": 1764442800,
                "created_by": None,
                "published_at": 1764442800,
                "archived_at": None,
            }
        }
    )

    object: Literal["steering.profile"] = "steering.profile"
    name: str
    version: int
    reference: str
    status: ProfileStatus
    description: str
    interventions: list[Annotated[dict[str, Any], SchemaOf(AnyIntervention)]]
    monitors: list[Annotated[dict[str, Any], SchemaOf(Monitor)]]
    requires: list[str]
    max_strength: float
    directions: list[str] = Field(description="Versions it was saved with.")
    unavailable: list[str] = Field(description="Those of them that cannot be used any more.")
    fingerprint: str
    model_fingerprint: str | None
    resid_norms: dict[str, float] = Field(
        description="Mean residual norm by point (`resid_post.1`) that its strengths count on."
    )
    created_at: Seconds
    created_by: str | None
    published_at: Seconds | None
    archived_at: Seconds | None

    @classmethod
    def of_record(cls, record: ProfileRecord) -> Self:
        """The answer that tells of a stored profile."""
        norms = {
            f"{point.site.value}.{point.layer}": norm
            for point, norm in sorted(record.resid_norms.items())
        }
        own = record.profile.to_dict() | {"requires": record.requires, "resid_norms": norms}
        return cls.of(record, **own)


class _PlannedIntervention(AppliedIntervention):
    """What one intervention of a profile would do."""

    doses: dict[str, float | None] = Field(
        description="Length of its push by layer, in residual norms; null if it is not fixed."
    )


class _PlannedMonitor(Answer):
    direction: str
    layer: int
    site: Site


class ProfileValidation(Answer):
    """What a profile would do on the loaded model."""

    object: Literal["steering.profile.validation"] = "steering.profile.validation"
    name: str
    is_valid: Literal[True] = True
    fingerprint: str
    model_fingerprint: str
    interventions: list[_PlannedIntervention]
    dose: float | None = Field(
        description="Length of all pushes over all layers, in residual norms; null without any."
    )
    warnings: list[str] = Field(description="What is likely not meant.")
    monitors: list[_PlannedMonitor]


class ProfilesArchived(Answer):
    """Versions that were taken out of use."""

    object: Literal["steering.profile.archived"] = "steering.profile.archived"
    name: str
    versions: list[int]


class AliasTarget(Wire):
    """Where an alias is to point: `name` follows the newest version, `name@2` does not."""

    model_config = ConfigDict(json_schema_extra={"example": {"profile": "brisk@1"}})

    profile: _Name


class Alias(Answer):
    """An alias and where it points."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "steering.alias",
                "alias": "production",
                "profile": "brisk@1",
                "created_at": 1764442800,
                "updated_at": 1764442800,
                "updated_by": None,
            }
        }
    )

    object: Literal["steering.alias"] = "steering.alias"
    alias: str
    profile: str
    created_at: Seconds
    updated_at: Seconds
    updated_by: str | None

    @classmethod
    def of_record(cls, record: AliasRecord) -> Self:
        """The answer that tells of a stored alias."""
        return cls.of(record, alias=record.name, profile=record.target)


class AliasDeleted(Answer):
    """The name of an alias that is gone."""

    object: Literal["steering.alias.deleted"] = "steering.alias.deleted"
    alias: str
