"""What the server says of itself: models, tokens, keys and the audit log."""

from __future__ import annotations

from typing import Any

from .record import Record


class Model(Record):
    """A name that a request's `model` may have: the model, or the model under a profile."""

    id: str
    max_model_len: int | None = None
    root: str | None = None
    parent: str | None = None
    created: int | None = None
    owned_by: str | None = None


class Tokens(Record):
    """A text or chat in tokens."""

    tokens: list[int]
    count: int
    max_model_len: int | None = None


class Key(Record):
    """An API key without its secret; times are Unix seconds."""

    id: str
    name: str
    scopes: list[str]
    profiles_allow: list[str] | None = None
    default_profile: str | None = None
    requests_per_minute: int | None = None
    expires_at: int | None = None
    created_at: int | None = None
    created_by: str | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None


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
    request_id: str | None = None
    address: str | None = None
    before: str | None = None
    after: str | None = None
    previous_hash: str | None = None
    hash: str | None = None
