"""Who may do what, and who did."""

from __future__ import annotations

from typing import Any

from .record import Record

__all__ = ["AuditEvent", "Key", "NewKey"]


class Key(Record):
    """An API key without its secret; times are Unix seconds."""

    id: str
    name: str
    scopes: list[str]
    profiles_allow: list[str] | None = None
    default_profile: str | None = None
    requests_per_minute: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None


class NewKey(Key):
    """An API key just made; the secret is told this once."""

    secret: str


class AuditEvent(Record):
    """One line of the audit log."""

    sequence: int
    at: str
    key_id: str | None = None
    action: str
    subject: str
    detail: dict[str, Any]
