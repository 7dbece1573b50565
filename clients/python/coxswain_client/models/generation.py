"""Chats and continued text."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from pydantic import Field

from .record import Generated, Record
from .steering import AppliedSteering


class ChatMessage(TypedDict):
    """One turn of a chat, as sent; an assistant's may have the thought before it."""

    role: str
    content: str
    reasoning_content: NotRequired[str | None]


class Message(Record):
    """One turn of a chat, as answered."""

    role: str
    content: str
    reasoning_content: str | None = None
    refusal: str | None = None


class Usage(Record):
    """Numbers of tokens of a request and its answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] = Field(default_factory=dict)
    completion_tokens_details: dict[str, int] | None = None


class Choice(Record):
    """One of n answers."""

    index: int
    message: Message
    finish_reason: str
    logprobs: dict[str, Any] | None = None
    stop_reason: int | str | None = None


class RenderedTemplate(Record):
    """How a chat was rendered, where the request asks for something or a message was moved."""

    name: str
    variables: dict[str, Any]
    merged_system: bool
    not_applied: list[str]


class ChatCompletion(Generated):
    """A chat's continuation."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    steering: AppliedSteering
    chat_template: RenderedTemplate | None = None

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].message.content

    @property
    def thought(self) -> str | None:
        """What was thought before the first choice; None without a thought, or not told apart."""
        return self.choices[0].message.reasoning_content

    @property
    def baseline_text(self) -> str | None:
        """Text of the first unsteered choice; None unless `compare` was set."""
        if self.steering.baseline is None:
            return None
        return str(self.steering.baseline["choices"][0]["message"]["content"])


class Delta(Record):
    """What a chunk adds to a message."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None


class ChunkChoice(Record):
    """What a chunk adds to one of n answers."""

    index: int
    delta: Delta
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    stop_reason: int | str | None = None


class ChatChunk(Generated):
    """One event of a streamed chat; `usage` and `steering` come with the last."""

    id: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    steering: AppliedSteering | None = None
    chat_template: RenderedTemplate | None = None

    @property
    def thought(self) -> str:
        """What it adds to the thought before the first choice; empty where it adds nothing."""
        return "".join(c.delta.reasoning_content or "" for c in self.choices if c.index == 0)

    @property
    def text(self) -> str:
        """Text that it adds to the first choice; empty where it adds none."""
        return "".join(c.delta.content or "" for c in self.choices if c.index == 0)


class CompletionChoice(Record):
    """One of n continuations of one prompt."""

    index: int
    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None = None
    stop_reason: int | str | None = None


class Completion(Generated):
    """Continuations of prompts."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    steering: AppliedSteering

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].text
