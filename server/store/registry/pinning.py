"""Turning a profile into what is stored: directions pinned, fingerprint taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.store.canonical import json_digest
from server.store.errors import DirectionNotFoundError
from server.store.tables import DirectionRow
from steering.documents import DirectionRef, Gate, Profile, StrengthUnit
from steering.requirements import is_locked, permission_of, permissions_to_read, why_it_may_weaken
from steering.sites import Site, SitePoint

from .records import write_norms


@dataclass(frozen=True, slots=True)
class PinnedProfile:
    """A profile whose directions are all `name@version`.

    Attributes:
        profile: The pinned profile.
        directions: Rows of its directions, each once; locked against archiving.
        resid_norms: Frozen norms as JSON.
        requires: Its own permissions and those of its directions.
        fingerprint: Hash of what changes numbers.
    """

    profile: Profile
    directions: tuple[DirectionRow, ...]
    resid_norms: Mapping[str, float]
    requires: tuple[str, ...]
    fingerprint: str


def pin(
    session: Session,
    profile: Profile,
    resid_norms: Mapping[SitePoint, float],
    needed: frozenset[str] = frozenset(),
) -> PinnedProfile:
    """Pin every direction of `profile` to its newest listed version, or the version it names.

    Permissions in `needed` are required beside those found here.

    Raises:
        DirectionNotFoundError: One does not exist or is archived; `param` names the field.
    """
    rows: dict[DirectionRef, DirectionRow] = {}

    def pinned(reference: DirectionRef, param: str) -> DirectionRef:
        if reference not in rows:
            rows[reference] = _lock(session, reference, param)
        return DirectionRef(rows[reference].name, rows[reference].version)

    def pinned_gate(gate: Gate | None, param: str) -> Gate | None:
        if gate is None:
            return None
        found = pinned(gate.direction, f"{param}.direction")
        return gate.model_copy(update={"direction": found})

    interventions = tuple(
        item.model_copy(
            update={
                "direction": pinned(item.direction, f"interventions[{index}].direction"),
                "gate": pinned_gate(item.gate, f"interventions[{index}].gate"),
            }
        )
        for index, item in enumerate(profile.interventions)
    )
    monitors = tuple(
        item.model_copy(
            update={"direction": pinned(item.direction, f"monitors[{index}].direction")}
        )
        for index, item in enumerate(profile.monitors)
    )
    profile = profile.model_copy(update={"interventions": interventions, "monitors": monitors})
    directions = tuple({row.id: row for row in rows.values()}.values())
    uses_norms = any(item.unit is StrengthUnit.RESID for item in interventions)
    norms = write_norms(resid_norms) if uses_norms else {}
    return PinnedProfile(
        profile=profile,
        directions=directions,
        resid_norms=norms,
        requires=tuple(sorted(needed | _requires(profile, directions))),
        fingerprint=_fingerprint(profile, directions, norms),
    )


def _requires(profile: Profile, directions: tuple[DirectionRow, ...]) -> frozenset[str]:
    """The profile's own permissions, and those its directions ask for by their use at strength 1.

    Lengths of pushes are not looked at, for want of tensors here: `Drafting` adds what they ask.
    """
    rows = {DirectionRef(row.name, row.version): row for row in directions}
    permissions = set(profile.requires)
    for row in directions:
        permissions |= permissions_to_read(row.requires)
    for item in profile.interventions:
        row = rows[item.direction]
        if is_locked(row.requires) and why_it_may_weaken(item, Site(row.site), row.layers):
            permissions.update(map(permission_of, row.requires))
    return frozenset(permissions)


def _lock(session: Session, reference: DirectionRef, param: str) -> DirectionRow:
    """The row of a reference, share-locked: an archiver waits, or was first and is seen."""
    query = select(DirectionRow).where(
        DirectionRow.name == reference.name, DirectionRow.archived_at.is_(None)
    )
    if reference.version is not None:
        query = query.where(DirectionRow.version == reference.version)
    query = query.order_by(DirectionRow.version.desc()).limit(1).with_for_update(read=True)
    row = session.scalars(query).first()
    if row is None:
        raise DirectionNotFoundError(
            f"{param} is {str(reference)!r}, which does not exist or is archived; upload it, or "
            "name another direction",
            param=param,
        )
    return row


def _fingerprint(
    profile: Profile, directions: tuple[DirectionRow, ...], norms: Mapping[str, float]
) -> str:
    digests = {f"{row.name}@{row.version}": row.digest for row in directions}

    def by_content(document: dict[str, Any]) -> dict[str, Any]:
        gate = document.get("gate")
        own = {} if gate is None else {"gate": by_content(gate)}
        return document | own | {"direction": digests[document["direction"]]}

    return json_digest(
        [
            [by_content(item.to_dict()) for item in profile.interventions],
            [by_content(item.to_dict()) for item in profile.monitors],
            dict(norms),
        ]
    )
