"""Bodies of `/v1/steering/analyze`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from server.api.http.errors import InvalidParameterError

from .chat import MessageField
from .fields import Count, Wire
from .steering import SteeringFields

__all__ = ["Conversation", "ScoreBody", "TraceBody"]

_MAX_READOUTS = 512


def _text_or_ids(value: Any) -> Any:
    is_ids = isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) for item in value
    )
    if not (isinstance(value, str) or is_ids) or not value:
        raise ValueError("expected a text or a list of token ids, not empty")
    return value


_TextOrIds = Annotated[str | list[int], BeforeValidator(_text_or_ids)]


class Conversation(Wire):
    """What is looked into: `messages`, or a `prompt` as text or token ids.

    A chat whose last message is the assistant's is left open, as it was while being written; any
    other ends with the beginning of an assistant's turn.
    """

    messages: Annotated[list[MessageField], Field(min_length=1)] | None = None
    prompt: _TextOrIds | None = None
    steering: SteeringFields = Field(default_factory=SteeringFields)

    @model_validator(mode="after")
    def _one_of_two(self) -> Conversation:
        if (self.messages is None) == (self.prompt is None):
            raise InvalidParameterError(
                "messages and prompt are both given or both absent; give one", param="messages"
            )
        return self


class TraceBody(Conversation):
    """Tokens of a conversation, and scores of each; up to `max_tokens` are generated first."""

    readouts: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=_MAX_READOUTS)]
    max_tokens: Count = 0


class ScoreBody(Conversation):
    """Known text to score: of `continuation` where it is given, else all of it."""

    continuation: _TextOrIds | None = None
