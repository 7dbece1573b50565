"""Continued text."""

from __future__ import annotations

from typing import Any

from .chat import Usage
from .record import Record
from .steering import AppliedSteering

__all__ = ["Completion", "CompletionChoice"]


class CompletionChoice(Record):
    """One of n continuations of one prompt."""

    index: int
    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class Completion(Record):
    """Continuations of prompts."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    steering: AppliedSteering

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.choices[0].text
