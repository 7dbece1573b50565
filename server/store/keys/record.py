"""Records of API keys: what a new key may do, a stored key, and a new key with its secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from server.auth.permissions import Permission, Principal
from server.store.names import check_name, check_text
from server.store.tables import KeyRow
from steering.errors import InvalidFieldError

_MAX_REQUESTS_PER_MINUTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class KeySpec:
    """The permissions and limits of a new key.

    Attributes:
        name: Name for people; need not be unique.
        permissions: At least one; `scopes` on the wire and in the database.
        profiles_allow: Profiles and aliases it may name; None means any.
        default_profile: Used when a request names none.
        requests_per_minute: None means no limit.
        expires_at: Aware; None means never.

    Raises:
        InvalidFieldError: Naming the field.
    """

    name: str
    permissions: frozenset[Permission]
    profiles_allow: frozenset[str] | None = None
    default_profile: str | None = None
    requests_per_minute: int | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        check_text(self.name, param="name", max_length=100)
        if not self.name.strip():
            raise InvalidFieldError("name is empty; expected a name for people", param="name")
        if not self.permissions or not self.permissions <= set(Permission):
            raise InvalidFieldError(
                f"scopes are {sorted(self.permissions)}; expected at least one of "
                f"{', '.join(Permission)}",
                param="scopes",
            )
        for name in sorted(self.profiles_allow or ()):
            check_name(name, param="profiles_allow")
        if self.default_profile is not None:
            check_name(self.default_profile, param="default_profile")
        limit = self.requests_per_minute
        if limit is not None and not 1 <= limit <= _MAX_REQUESTS_PER_MINUTE:
            raise InvalidFieldError(
                f"requests_per_minute is {limit}; expected 1 to {_MAX_REQUESTS_PER_MINUTE:,}",
                param="requests_per_minute",
            )
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise InvalidFieldError(
                "expires_at has no time zone; expected one, such as Z", param="expires_at"
            )


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key without its secret.

    Attributes:
        id: Public id, part of the key's text.
        spec: What it may do.
        created_at: UTC.
        created_by: Id of the key that made it.
        revoked_at: UTC; None while it is not revoked.
        last_used_at: UTC, to the minute.
    """

    id: str
    spec: KeySpec
    created_at: datetime
    created_by: str | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def principal(self) -> Principal:
        """The caller who holds it."""
        spec = self.spec
        return Principal(
            key_id=self.id,
            name=spec.name,
            permissions=spec.permissions,
            profiles_allow=spec.profiles_allow,
            default_profile=spec.default_profile,
            requests_per_minute=spec.requests_per_minute,
        )

    def is_active(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        expires_at = self.spec.expires_at
        return self.revoked_at is None and (expires_at is None or now < expires_at)

    @classmethod
    def from_row(cls, row: KeyRow) -> Self:
        """The value of a row."""
        spec = KeySpec(
            name=row.name,
            permissions=frozenset(map(Permission, row.scopes)),
            profiles_allow=None if row.profiles_allow is None else frozenset(row.profiles_allow),
            default_profile=row.default_profile,
            requests_per_minute=row.requests_per_minute,
            expires_at=row.expires_at,
        )
        return cls(
            id=row.id,
            spec=spec,
            created_at=row.created_at,
            created_by=row.created_by,
            revoked_at=row.revoked_at,
            last_used_at=row.last_used_at,
        )


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key with its secret, which is shown once and kept nowhere."""

    record: KeyRecord
    secret: str = field(repr=False)
