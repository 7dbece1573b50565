"""Callers and their permissions; no HTTP and no storage.

AuthError
|-- AuthenticationError      no valid API key
|-- PermissionDeniedError    a valid key that may not do this
|   `-- ProfileNotAllowedError  a profile outside the key's allow-list
`-- RateLimitedError         a valid key that did this too often
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from steering.errors import CoxswainError

if TYPE_CHECKING:
    from steering.requirements import Weakening


class Permission(StrEnum):
    """One thing a key may do, listed in its `scopes` on the wire.

    None implies another: `admin` does not include `restricted`.
    """

    CHAT = "chat"  # generate with published profiles
    INLINE = "inline"  # send interventions in a request; strengths outside a profile's bounds
    READ = "read"  # list and read directions, profiles, aliases
    ADMIN = "admin"  # change the registry, run jobs, manage keys
    RESTRICTED = "restricted"  # use what requires it, such as edits that weaken refusals


class AuthError(CoxswainError):
    """A caller may not do what it asks."""

    code = "auth_error"


class AuthenticationError(AuthError):
    """No valid API key; one message for missing, malformed, unknown, expired and revoked."""

    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__(
            "the API key is missing or not valid; send 'Authorization: Bearer sk-cox-...' with "
            "a key made by 'coxswain keys create'"
        )


class PermissionDeniedError(AuthError):
    """The key is valid but may not do this."""

    code = "permission_denied"


class ProfileNotAllowedError(PermissionDeniedError):
    """The key's allow-list does not have this profile."""

    code = "profile_not_allowed"


@dataclass(frozen=True, slots=True)
class Allowance:
    """The rest of a key's limit; the `x-ratelimit-*` headers of answers.

    Attributes:
        limit: Requests per minute.
        remaining: Requests that would pass now.
        reset_seconds: Until the full limit is there again.
    """

    limit: int
    remaining: int
    reset_seconds: float


class RateLimitedError(AuthError):
    """The key sent more requests than its limit.

    Attributes:
        retry_after_seconds: When the next request would pass; whole seconds, at least 1.
        allowance: What the limit leaves.
    """

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_seconds: int, allowance: Allowance) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.allowance = allowance


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of one request.

    Attributes:
        key_id: Public id of the API key; None for the local user of a server without keys.
        name: Name of the key, for people.
        permissions: What it may do; `scopes` on the wire.
        profiles_allow: Profiles and aliases it may name; None means any.
        default_profile: Used when a request names none.
        requests_per_minute: Its limit; None means none.
        cache_salt: Separates its prefix-cache entries from other keys'; empty without keys.
    """

    key_id: str | None
    name: str
    permissions: frozenset[Permission]
    profiles_allow: frozenset[str] | None = None
    default_profile: str | None = None
    requests_per_minute: int | None = None

    @property
    def cache_salt(self) -> bytes:
        """16 bytes derived from the key's id, the same after a restart and on every replica."""
        if self.key_id is None:
            return b""
        return hashlib.sha256(b"coxswain prefix cache\0" + self.key_id.encode()).digest()[:16]

    def require(
        self, *permissions: Permission | str, param: str | None = None, because: str = "this"
    ) -> None:
        """Check that the key holds every one of `permissions`; `because` says what needs them.

        Raises:
            PermissionDeniedError: It lacks one; names it.
        """
        missing = sorted(set(map(str, permissions)) - self.permissions)
        if missing:
            raise PermissionDeniedError(
                f"key {self.name!r} has scopes {_listed(self.permissions)}; {because} needs "
                f"{_listed(missing)}; ask for a key that has it",
                param=param,
            )

    def require_profile(self, name: str, *, param: str | None = None) -> None:
        """Check that the key may use the profile or alias `name` (without version).

        Raises:
            PermissionDeniedError: It has an allow-list without that name.
        """
        if self.profiles_allow is not None and name not in self.profiles_allow:
            raise ProfileNotAllowedError(
                f"key {self.name!r} may use profiles {_listed(self.profiles_allow)}, not {name!r}",
                param=param,
            )


LOCAL_USER: Final = Principal(key_id=None, name="local user", permissions=frozenset(Permission))
"""The caller of a server without keys, and of the command line.

It holds every permission, `restricted` too: without keys the server listens on loopback only, and
whoever can run programs on the machine can read the model and the store anyway.
"""


def allow_weakenings(weakenings: Iterable[Weakening], caller: Principal) -> None:
    """Check that `caller` may do each of them.

    Raises:
        PermissionDeniedError: The key lacks a permission; says what makes it one that weakens.
    """
    for found in weakenings:
        because = f"{found.path} may weaken {found.direction.reference}: {found.why}"
        caller.require(*found.permissions, param=found.path, because=because)


def _listed(items: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, items))) or "none"
