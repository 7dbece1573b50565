"""A chat as text, with the places of its turns."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .protected_tokens import ProtectedTokens

__all__ = ["ChatRenderer", "Message", "RenderedText", "TurnSpan"]

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TurnSpan:
    """Characters [start, stop) of the rendered text that come from one message's content."""

    start: int
    stop: int
    role: str

    @property
    def is_assistant(self) -> bool:
        """Whether an assistant wrote it."""
        return self.role == "assistant"


@dataclass(frozen=True, slots=True)
class RenderedText:
    """A rendered chat, to be encoded by the protected tokenizer.

    Attributes:
        text: With aliases for the special tokens the template wrote.
        turns: In order; None where the template changes content so that it cannot be found again.
    """

    text: str
    turns: tuple[TurnSpan, ...] | None


class ChatRenderer:
    """Renders a server's own chat template."""

    def __init__(
        self,
        render: Callable[[list[dict[str, str]]], str],
        protected: ProtectedTokens,
        thinking_markers: tuple[str, str] | None,
    ) -> None:
        """Render with `render`; assistants, and only they, may write the thinking markers."""
        self._render = render
        self._protected = protected
        self._markers = frozenset(thinking_markers or ())
        close = re.escape(thinking_markers[1]) if thinking_markers else r"(?!)"
        self._thought_end = re.compile(close + r"\s*")
        self._secret = secrets.token_hex(8)
        self._mark = re.compile(rf"\ue004{self._secret}(\d+)([<>])\ue005")

    def render(self, messages: Sequence[Message], *, is_open: bool = False) -> RenderedText:
        """Render once for the text and once, with marks in the content, for the turns.

        An open chat ends within its last turn, space at the end included.
        """
        hidden = [self._hide(message) for message in messages]
        text = self._protected.reveal(self._render(hidden))
        marked = self._protected.reveal(self._render(self._marked(hidden)))
        found, turns = self._take_marks(marked, messages)
        if found != text:
            return RenderedText(text, None)
        if is_open and turns:
            turns = (*turns[:-1], replace(turns[-1], stop=len(text)))
        return RenderedText(text, turns)

    def _hide(self, message: Message) -> dict[str, str]:
        allowed = self._markers if message["role"] == "assistant" else frozenset()
        return {key: self._protected.hide(value, allowed=allowed) for key, value in message.items()}

    def _marked(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """Marks stand inside surrounding space, because templates trim it.

        One more start stands behind a thought, because templates drop thoughts of earlier turns.
        """
        marked = []
        for index, message in enumerate(messages):
            content = message["content"]
            core = content.strip()
            if core:
                start, stop = self._marks(index)
                before, after = content.split(core, 1) if content != core else ("", "")
                core = self._thought_end.sub(rf"\g<0>{start}", core)
                content = f"{before}{start}{core}{stop}{after}"
            marked.append({**message, "content": content})
        return marked

    def _marks(self, index: int) -> tuple[str, str]:
        return f"\ue004{self._secret}{index}<\ue005", f"\ue004{self._secret}{index}>\ue005"

    def _take_marks(
        self, marked: str, messages: Sequence[Message]
    ) -> tuple[str, tuple[TurnSpan, ...]]:
        parts: list[str] = []
        starts: dict[int, int] = {}
        turns: list[TurnSpan] = []
        length = end = 0
        for match in self._mark.finditer(marked):
            parts.append(marked[end : match.start()])
            length += len(parts[-1])
            end = match.end()
            index = int(match[1])
            if match[2] == "<":
                starts.setdefault(index, length)
            elif index in starts:
                turns.append(TurnSpan(starts.pop(index), length, messages[index]["role"]))
        return "".join([*parts, marked[end:]]), tuple(turns)
