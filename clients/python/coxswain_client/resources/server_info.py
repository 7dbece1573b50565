"""The server itself: its models, what it can do, whether it is well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import httpx

from coxswain_client.call import Call, read_as
from coxswain_client.endpoint import Endpoint, Resource
from coxswain_client.models.generation import ChatMessage
from coxswain_client.models.record import Page
from coxswain_client.models.registry import Model, Tokens
from coxswain_client.sender import AsyncSender, Sender

__all__ = ["ServerInfo"]

_S = TypeVar("_S", bound=Sender | AsyncSender)


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
) -> Call[Tokens]:
    """Token ids of a text, or of a chat as the model is given it, ready to be answered.

    Args:
        prompt: The text; or else
        messages: the chat.
        add_special_tokens: Whether a text begins with the model's beginning token, if it has one.
    """
    body: dict[str, Any] = {"messages": list(messages)}
    if prompt is not None:
        body = {"prompt": prompt, "add_special_tokens": add_special_tokens}
    return Call("POST", "/v1/tokenize", read_as(Tokens), json=body)


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
