"""What the store knows of a direction version, without its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from server.store.tables import DirectionRow
from steering.directions import Direction, DirectionKind
from steering.sites import Site

__all__ = ["DirectionRecord", "tensor_norms"]


@dataclass(frozen=True, slots=True)
class DirectionRecord:
    """One immutable version.

    Attributes:
        name: Registry name.
        version: From 1, without gaps, archived versions included.
        kind: What the tensors mean.
        site: Where they belong.
        layers: Layers they were stored for.
        width: Width of the tensors.
        norms: L2 (Frobenius) norm of each tensor as stored, by tensor name.
        sha256: Of the file that holds the tensors.
        size_bytes: Of that file.
        digest: `Direction.digest`.
        model_fingerprint: Model it was made for; None means any of this width.
        requires: Scopes a key must hold to use it.
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


def tensor_norms(direction: Direction) -> dict[str, float]:
    """L2 (Frobenius) norm of each tensor as stored, computed in float64."""
    return {name: float(t.double().norm()) for name, t in sorted(direction.tensors.items())}
