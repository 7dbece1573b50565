"""Chats and continued text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from coxswain_client.call import Call, read_as
from coxswain_client.endpoint import Endpoint, Resource, StreamEndpoint
from coxswain_client.models.generation import ChatChunk, ChatCompletion, ChatMessage, Completion
from coxswain_client.models.steering import Intervention, SteeringOptions
from coxswain_client.sender import AsyncSender, Sender

_S = TypeVar("_S", bound=Sender | AsyncSender)


def _steering(
    profile: str | None,
    strength: float | None,
    interventions: Sequence[Intervention],
    steering: SteeringOptions | None,
) -> dict[str, Any]:
    """The `steering` member of a body; named arguments win over the object's own."""
    given: dict[str, Any] = dict(steering or {})
    if profile is not None:
        given["profile"] = profile
    if strength is not None:
        given["strength"] = strength
    if interventions:
        given["interventions"] = list(interventions)
    return {"steering": given} if given else {}


def _chat_body(messages: Sequence[ChatMessage] | str, options: Mapping[str, Any]) -> dict[str, Any]:
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return {"messages": list(turns), **options}


def _chat(
    messages: Sequence[ChatMessage] | str,
    *,
    model: str,
    profile: str | None = None,
    strength: float | None = None,
    interventions: Sequence[Intervention] = (),
    steering: SteeringOptions | None = None,
    **sampling: Any,
) -> Call[ChatCompletion]:
    """Continue a chat.

    Args:
        messages: Turns, or the text of one turn of the user.
        model: A name from `models()`; `base:profile` chooses a profile as well.
        profile: `name` or `name@version`; "none" opts out of any default.
        strength: Factor on the profile's strengths.
        interventions: Inline interventions; the key needs the permission `inline`.
        steering: Further members of the `steering` object, such as `compare` or `monitors`.
        sampling: Further members of the body, such as `max_tokens`, `temperature` or `seed`.

    Raises:
        SteeringClientError: There is no answer, or it is an error.
    """
    chosen = _steering(profile, strength, interventions, steering)
    body = _chat_body(messages, {"model": model, **chosen, **sampling})
    return Call("POST", "/v1/chat/completions", read_as(ChatCompletion), json=body)


def _stream_chat(
    messages: Sequence[ChatMessage] | str,
    *,
    model: str,
    profile: str | None = None,
    strength: float | None = None,
    interventions: Sequence[Intervention] = (),
    steering: SteeringOptions | None = None,
    **sampling: Any,
) -> Call[ChatChunk]:
    """Continue a chat and read the answer while it is written; arguments as for `chat`."""
    chosen = _steering(profile, strength, interventions, steering)
    options = {"stream_options": {"include_usage": True}, **sampling}
    body = _chat_body(messages, {"model": model, "stream": True, **chosen, **options})
    return Call("POST", "/v1/chat/completions", ChatChunk.model_validate, json=body)


def _complete(
    prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
    *,
    model: str,
    profile: str | None = None,
    strength: float | None = None,
    interventions: Sequence[Intervention] = (),
    steering: SteeringOptions | None = None,
    **sampling: Any,
) -> Call[Completion]:
    """Continue text: one prompt or several, as text or as token ids; arguments as for `chat`."""
    chosen = _steering(profile, strength, interventions, steering)
    body = {"model": model, "prompt": prompt, **chosen, **sampling}
    return Call("POST", "/v1/completions", read_as(Completion), json=body)


class Generation(Resource[_S]):
    """Chats and continued text, each under its own steering."""

    chat = Endpoint(_chat)
    stream_chat = StreamEndpoint(_stream_chat)
    complete = Endpoint(_complete)
