"""What the store knows of a profile version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from server.store.tables import ProfileRow
from steering.documents import Profile, ProfileDocument
from steering.sites import Site, SitePoint

__all__ = ["ProfileRecord", "ProfileStatus", "read_norms", "write_norms"]


class ProfileStatus(StrEnum):
    """Whether a version may be chosen by the profile's name alone."""

    DRAFT = "draft"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class ProfileRecord:
    """One version.

    Attributes:
        name: Registry name.
        version: From 1, without gaps, archived versions included.
        profile: With every direction pinned to `name@version`.
        status: Draft or published; publishing is for good.
        fingerprint: Hash of what changes numbers: interventions, monitors, the pinned directions'
            digests and the frozen norms. Not of the description.
        model_fingerprint: Model it was checked against; None means none.
        requires: Scopes a key must hold: its own and those of its directions, sorted.
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
    """As JSON: `{"resid_post.2": 13.7}`."""
    return {f"{point.site.value}.{point.layer}": float(norm) for point, norm in norms.items()}


def read_norms(document: Mapping[str, float]) -> dict[SitePoint, float]:
    """The reverse of `write_norms`."""
    norms = {}
    for key, norm in document.items():
        site, layer = key.rsplit(".", 1)
        norms[SitePoint(int(layer), Site(site))] = norm
    return norms
