"""One example prompt: a text, or the messages of a chat."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

from steering.errors import InvalidFieldError, shown
from steering.fields import check_keys, filled_text, require

__all__ = ["Example", "read_examples"]

_ROLES: Final = ("system", "user", "assistant")
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class Example:
    """An item of data.

    Attributes:
        param: Where it stands in the request, for errors: `data.positive[3]`.
        messages: Role and content of each turn; a text is one turn of the user.
        is_text: Whether it was given as a text.
    """

    param: str
    messages: tuple[tuple[str, str], ...]
    is_text: bool

    @classmethod
    def parse(cls, item: Any, param: str) -> Self:
        """Read a string or a list of `{"role", "content"}`.

        Raises:
            InvalidFieldError: Anything else, an empty text, an unknown role, or a system message
                that is not the first.
        """
        if isinstance(item, str):
            return cls(param, (("user", filled_text(item, param)),), is_text=True)
        if not isinstance(item, list | tuple) or not item:
            raise InvalidFieldError(
                f"{param} is {shown(item)}; expected a text or a list of messages", param=param
            )
        messages = tuple(
            _message(message, f"{param}[{turn}]", turn) for turn, message in enumerate(item)
        )
        if "user" not in [role for role, _ in messages]:
            raise InvalidFieldError(
                f"{param} has no message of the user; expected at least one", param=param
            )
        return cls(param, messages, is_text=False)

    @cached_property
    def canonical(self) -> str:
        """A text that equal examples share: their messages as JSON."""
        return json.dumps(self.messages, ensure_ascii=False)

    @cached_property
    def subject(self) -> str:
        """The words of the user's turns; the split keeps examples that share them on one side.

        Case, spacing, punctuation, system prompts and answers do not count.
        """
        said = " | ".join(content for role, content in self.messages if role == "user")
        return " ".join(_WORD.findall(said.casefold())) or said

    @property
    def is_answered(self) -> bool:
        """Whether it ends with a turn of the assistant."""
        return self.messages[-1][0] == "assistant"

    @property
    def has_system(self) -> bool:
        """Whether it has a system prompt of its own."""
        return self.messages[0][0] == "system"

    def chat(self, system: str | None, *, with_answer: bool) -> list[dict[str, str]]:
        """Return messages for a chat template, below `system` unless that is None."""
        turns = self.messages
        if self.is_answered and not with_answer:
            turns = turns[:-1]
        head = [] if system is None else [("system", system)]
        return [{"role": role, "content": content} for role, content in (*head, *turns)]


def read_examples(document: Mapping[str, Any], key: str, *, most: int) -> tuple[Example, ...]:
    """A list of chats or texts.

    Raises:
        InvalidFieldError: Not one, too many, or one that is malformed.
    """
    items = require(document, key, noun="the request")
    if not isinstance(items, list) or not 0 < len(items) <= most:
        size = f"has {len(items):,} entries" if isinstance(items, list) else "is not a list"
        raise InvalidFieldError(
            f"{key} {size}; expected 1 to {most:,}; larger sets go through a job", param=key
        )
    return tuple(Example.parse(item, f"{key}[{index}]") for index, item in enumerate(items))


def _message(message: Any, param: str, turn: int) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise InvalidFieldError(
            f"{param} is {shown(message)}; expected an object with role and content", param=param
        )
    check_keys(message, {"role", "content"}, noun="a message", prefix=f"{param}.")
    role = message.get("role")
    if role not in _ROLES or (role == "system" and turn > 0):
        raise InvalidFieldError(
            f"{param}.role is {shown(role)}; expected 'user' or 'assistant', or 'system' for the "
            "first message",
            param=f"{param}.role",
        )
    return role, filled_text(message.get("content"), f"{param}.content")
