"""API keys and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from coxswain_client.call import Call, below, read_as
from coxswain_client.endpoint import Endpoint, Resource
from coxswain_client.models.access import AuditEvent, Key, NewKey
from coxswain_client.models.record import Page
from coxswain_client.sender import AsyncSender, Sender

__all__ = ["Audit", "Keys"]

_S = TypeVar("_S", bound=Sender | AsyncSender)
_KEYS = "/v1/admin/keys"
_AUDIT = "/v1/admin/audit"


def _create(name: str, scopes: Sequence[str], **limits: Any) -> Call[NewKey]:
    """Make a key that may do no more than the caller's.

    One is made, however often the request has to be sent. Where the first answer was lost its
    secret is too: the error says so, and the key can be revoked.

    Args:
        name: For people.
        scopes: Some of chat, inline, read, admin and restricted.
        limits: `profiles_allow`, `default_profile`, `requests_per_minute`, and `expires_at` as
            ISO 8601 text.
    """
    body = {"name": name, "scopes": list(scopes), **limits}
    return Call("POST", _KEYS, read_as(NewKey), json=body, is_kept=True)


def _list(*, limit: int | None = None, cursor: str | None = None) -> Call[Page[Key]]:
    """All keys, revoked ones too, a page at a time."""
    return Call("GET", _KEYS, read_as(Page[Key]), params={"limit": limit, "cursor": cursor})


def _revoke(key_id: str) -> Call[Key]:
    """End a key for good, at once."""
    return Call("DELETE", below(_KEYS, key_id), read_as(Key))


def _list_events(
    *, action: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[Page[AuditEvent]]:
    """Events, newest first, a page at a time; `action` keeps one kind."""
    params = {"action": action, "limit": limit, "cursor": cursor}
    return Call("GET", _AUDIT, read_as(Page[AuditEvent]), params=params)


class Keys(Resource[_S]):
    """The API keys."""

    create = Endpoint(_create)
    list = Endpoint(_list)
    revoke = Endpoint(_revoke)


class Audit(Resource[_S]):
    """Who changed what, and who used what is restricted."""

    list = Endpoint(_list_events)
