"""API keys and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field

from server.auth.permissions import Permission
from server.store import AuditEvent as AuditRecord
from server.store import KeyRecord

from .answers import Answer, Moment, Seconds
from .fields import Wire

_Name = Annotated[str, Field(max_length=256)]


def _moment(value: Any) -> Any:
    """JSON has no times; an ISO 8601 text is one."""
    if not isinstance(value, str):
        raise ValueError("expected a time such as 2030-01-01T00:00:00Z")
    return datetime.fromisoformat(value)


class KeyRequest(Wire):
    """A key to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "laboratory",
                "scopes": ["chat", "read"],
                "requests_per_minute": 60,
                "expires_at": "2030-01-01T00:00:00Z",
            }
        }
    )

    name: _Name
    scopes: Annotated[list[str], Field(json_schema_extra={"items": {"enum": list(Permission)}})]
    profiles_allow: list[_Name] | None = Field(
        default=None, description="Profiles it may use; all where absent."
    )
    default_profile: _Name | None = None
    requests_per_minute: int | None = None
    expires_at: Annotated[datetime, BeforeValidator(_moment)] | None = None


class Key(Answer):
    """A key without its secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "key",
                "id": "key-0123456789ab",
                "name": "laboratory",
                "scopes": ["chat", "read"],
                "profiles_allow": None,
                "default_profile": None,
                "requests_per_minute": 60,
                "expires_at": 1893456000,
                "created_at": 1764442800,
                "created_by": None,
                "revoked_at": None,
                "last_used_at": None,
            }
        }
    )

    object: Literal["key"] = "key"
    id: str
    name: str
    scopes: list[Permission]
    profiles_allow: list[str] | None
    default_profile: str | None
    requests_per_minute: int | None
    expires_at: Seconds | None
    created_at: Seconds
    created_by: str | None
    revoked_at: Seconds | None
    last_used_at: Seconds | None

    @classmethod
    def of_record(cls, record: KeyRecord, **more: str) -> Self:
        """The answer that tells of a stored key."""
        spec, allow = record.spec, record.spec.profiles_allow
        return cls.of(
            record,
            name=spec.name,
            scopes=sorted(spec.permissions),
            profiles_allow=None if allow is None else sorted(allow),
            default_profile=spec.default_profile,
            requests_per_minute=spec.requests_per_minute,
            expires_at=spec.expires_at,
            **more,
        )


class NewKey(Key):
    """A key that was just made."""

    secret: str = Field(description="Shown this once.", examples=["sk-cox-..."])


class AuditEvent(Answer):
    """One line of the audit log; `hash` covers it and the hash before."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "audit.event",
                "sequence": 1,
                "at": "2025-11-29T19:00:00+00:00",
                "key_id": None,
                "request_id": "0b5c0c1c0f0e4a0b9d0a",
                "address": "127.0.0.1",
                "action": "profile.publish",
                "subject": "brisk@1",
                "before": None,
                "after": None,
                "detail": {},
                "previous_hash": "0" * 64,
                "hash": "1f2e" * 16,
            }
        }
    )

    object: Literal["audit.event"] = "audit.event"
    sequence: int
    at: Moment
    key_id: str | None
    request_id: str | None
    address: str | None
    action: str
    subject: str
    before: str | None
    after: str | None
    detail: dict[str, Any]
    previous_hash: str
    hash: str

    @classmethod
    def of_record(cls, event: AuditRecord) -> Self:
        """The answer that tells of a stored event."""
        actor = event.actor
        own = {"key_id": actor.key_id, "request_id": actor.request_id, "address": actor.address}
        return cls.of(event, **own)
