"""The server itself: its models, what it can do, whether it is well, its keys and audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import httpx

from coxswain_client.call import Call, below, read_as
from coxswain_client.endpoint import Endpoint, Resource
from coxswain_client.models.generation import ChatMessage
from coxswain_client.models.record import Page
from coxswain_client.models.server import AuditEvent, Key, Model, NewKey, Tokens
from coxswain_client.sender import AsyncSender, Sender

_S = TypeVar("_S", bound=Sender | AsyncSender)
_KEYS = "/v1/admin/keys"
_AUDIT = "/v1/admin/audit"


def _models() -> Call[Page[Model]]:
    """Every name a request's `model` may have: the model, and the model under each profile."""
    return Call("GET", "/v1/models", read_as(Page[Model]))


def _capabilities() -> Call[dict[str, Any]]:
    """Sites, operations and limits of the loaded model, and why something is not available."""
    return Call("GET", "/v1/capabilities", _read_object)


def _is_ready() -> Call[bool]:
    """Whether the server takes requests now; asked once, whatever the answer."""
    return Call("GET", "/health/ready", _read_ready, accepts=frozenset({503}), is_probe=True)


def _tokenize(
    prompt: str | None = None,
    *,
    messages: Sequence[ChatMessage] = (),
    add_special_tokens: bool = True,
    **options: Any,
) -> Call[Tokens]:
    """Token ids of a text, or of a chat as the model is given it, ready to be answered.

    Args:
        prompt: A text; give either this or `messages`.
        messages: A chat.
        add_special_tokens: Whether a text begins with the model's beginning token, if it has one.
        options: Further members of the body, such as `chat_template_kwargs` of a chat.
    """
    body: dict[str, Any] = {"messages": list(messages)}
    if prompt is not None:
        body = {"prompt": prompt, "add_special_tokens": add_special_tokens}
    return Call("POST", "/v1/tokenize", read_as(Tokens), json={**body, **options})


def _read_object(response: httpx.Response) -> dict[str, Any]:
    return dict(response.json())


def _read_ready(response: httpx.Response) -> bool:
    return response.is_success


class ServerInfo(Resource[_S]):
    """What the server is and how it is."""

    models = Endpoint(_models)
    capabilities = Endpoint(_capabilities)
    is_ready = Endpoint(_is_ready)
    tokenize = Endpoint(_tokenize)


def _create_key(name: str, scopes: Sequence[str], **limits: Any) -> Call[NewKey]:
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


def _list_keys(*, limit: int | None = None, cursor: str | None = None) -> Call[Page[Key]]:
    """All keys, revoked ones too, a page at a time."""
    return Call("GET", _KEYS, read_as(Page[Key]), params={"limit": limit, "cursor": cursor})


def _revoke_key(key_id: str) -> Call[Key]:
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

    create = Endpoint(_create_key)
    list = Endpoint(_list_keys)
    revoke = Endpoint(_revoke_key)


class Audit(Resource[_S]):
    """Who changed what, and who used what is restricted."""

    list = Endpoint(_list_events)
