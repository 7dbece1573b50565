"""Records of stored directions and profiles, a value for each version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar

from server.store.tables import DirectionRow, ProfileRow
from steering.directions import DirectionKind
from steering.documents import Profile, ProfileDocument
from steering.sites import Site, SitePoint

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SaveResult(Generic[_T]):
    """The result of saving something that may be stored already.

    Attributes:
        record: The version that holds what was given.
        created: False where it was there before.
    """

    record: _T
    created: bool


@dataclass(frozen=True, slots=True)
class DirectionRecord:
    """One immutable version.

    Attributes:
        name: Registry name.
        version: Version number from 1, without gaps, archived versions included.
        kind: Kind of the direction, which says what its tensors mean.
        site: Site at which it is stored.
        layers: Layers they were stored for.
        width: Width of the tensors, the length of their last dimension.
        norms: L2 (Frobenius) norm of each tensor as stored, by tensor name.
        sha256: SHA-256 of the file that holds the tensors, in hexadecimal.
        size_bytes: Size of that file.
        digest: `Direction.digest`.
        model_fingerprint: Model it was made for; None means any of this width.
        requires: Permissions a key must hold to use it.
        provenance: Free JSON.
        tags: Free labels, sorted.
        created_at: UTC.
        created_by: Id of the key that uploaded it.
        archived_at: UTC; None while it is listed.
        quarantined_at: UTC; set while its file is known to be damaged.
        etag: Revision of the name, changed by every upload and archiving under it.
    """

    name: str
    version: int
    kind: DirectionKind
    site: Site
    layers: tuple[int, ...]
    width: int
    norms: Mapping[str, float]
    sha256: str
    size_bytes: int
    digest: str
    model_fingerprint: str | None
    requires: tuple[str, ...]
    provenance: Mapping[str, Any]
    tags: tuple[str, ...]
    created_at: datetime
    created_by: str | None
    archived_at: datetime | None
    quarantined_at: datetime | None
    etag: str

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def is_available(self) -> bool:
        """Whether its file is not known to be damaged."""
        return self.quarantined_at is None

    @classmethod
    def from_row(cls, row: DirectionRow, revision: int) -> Self:
        """The value of a row."""
        return cls(
            name=row.name,
            version=row.version,
            kind=DirectionKind(row.kind),
            site=Site(row.site),
            layers=tuple(row.layers),
            width=row.width,
            norms=row.norms,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            digest=row.digest,
            model_fingerprint=row.model_fingerprint,
            requires=tuple(row.requires),
            provenance=row.provenance,
            tags=tuple(tag.tag for tag in row.tags),
            created_at=row.created_at,
            created_by=row.created_by,
            archived_at=row.archived_at,
            quarantined_at=row.quarantined_at,
            etag=str(revision),
        )


class ProfileStatus(StrEnum):
    """Whether a version may be chosen by the profile's name alone."""

    DRAFT = "draft"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class ProfileRecord:
    """One version.

    Attributes:
        name: Registry name.
        version: Version number from 1, without gaps, archived versions included.
        profile: With every direction pinned to `name@version`.
        status: Draft or published; publishing is for good.
        fingerprint: Hash of what changes numbers: interventions, monitors, the pinned directions'
            digests and the frozen norms. Not of the description.
        model_fingerprint: Model it was checked against; None means none.
        requires: Permissions a key must hold: its own and those of its directions, sorted.
        resid_norms: Mean residual norm per point, frozen when it was saved; empty unless an
            intervention has unit `resid`. In units of the activation.
        directions: Pinned directions as `name@version`, sorted.
        unavailable: Those of `directions` whose file is known to be damaged.
        created_at: UTC.
        created_by: Id of the key that saved it.
        published_at: UTC; None while it is a draft.
        archived_at: UTC; None while it is listed.
        etag: Revision of the name, changed by every change under it.
    """

    name: str
    version: int
    profile: Profile
    status: ProfileStatus
    fingerprint: str
    model_fingerprint: str | None
    requires: tuple[str, ...]
    resid_norms: Mapping[SitePoint, float]
    directions: tuple[str, ...]
    unavailable: tuple[str, ...]
    created_at: datetime
    created_by: str | None
    published_at: datetime | None
    archived_at: datetime | None
    etag: str

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def is_available(self) -> bool:
        """Whether none of its directions is quarantined."""
        return not self.unavailable

    @classmethod
    def from_row(cls, row: ProfileRow, revision: int) -> Self:
        """The value of a row."""
        return cls(
            name=row.name,
            version=row.version,
            profile=ProfileDocument.from_dict(row.document).named(row.name, row.version),
            status=ProfileStatus.DRAFT if row.published_at is None else ProfileStatus.PUBLISHED,
            fingerprint=row.fingerprint,
            model_fingerprint=row.model_fingerprint,
            requires=tuple(row.requires),
            resid_norms=read_norms(row.resid_norms),
            directions=tuple(sorted(f"{d.name}@{d.version}" for d in row.directions)),
            unavailable=tuple(
                sorted(f"{d.name}@{d.version}" for d in row.directions if d.quarantined_at)
            ),
            created_at=row.created_at,
            created_by=row.created_by,
            published_at=row.published_at,
            archived_at=row.archived_at,
            etag=str(revision),
        )


def write_norms(norms: Mapping[SitePoint, float]) -> dict[str, float]:
    """Norms by point as JSON, like `{"resid_post.2": 13.7}`."""
    return {f"{point.site.value}.{point.layer}": float(norm) for point, norm in norms.items()}


def read_norms(document: Mapping[str, float]) -> dict[SitePoint, float]:
    """The reverse of `write_norms`."""
    norms = {}
    for key, norm in document.items():
        site, layer = key.rsplit(".", 1)
        norms[SitePoint(int(layer), Site(site))] = norm
    return norms
