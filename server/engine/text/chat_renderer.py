"""A chat as text, with the places of its turns."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from server.engine.errors import RequestRejectedError

from .chat_template import Message
from .protected_tokens import ProtectedTokens

_MAX_OPENING: Final = 128  # characters of a marker's alias and of space after it


@dataclass(frozen=True, slots=True)
class TurnSpan:
    """Characters [start, stop) of the rendered text that come from one message's content.

    Attributes:
        start: The first, or that of the marker that opens the thought it begins with.
        stop: One past the last.
        role: Role of the message.
        index: Index of the message in the chat.
    """

    start: int
    stop: int
    role: str
    index: int = 0

    @property
    def is_assistant(self) -> bool:
        """Whether an assistant wrote it."""
        return self.role == "assistant"


@dataclass(frozen=True, slots=True)
class RenderedText:
    """A rendered chat, to be encoded by the protected tokenizer.

    Attributes:
        text: With aliases for the special tokens the template wrote.
        turns: Turns in order; None where the template so changes content that it is not found.
    """

    text: str
    turns: tuple[TurnSpan, ...] | None


class ChatRenderer:
    """Renders a server's own chat template, and sees to it that it says what the messages say.

    A template may drop the thought of an earlier assistant's turn, as the model was trained without
    them; nothing else. Space and case are its own business.
    """

    def __init__(
        self,
        render: Callable[[Sequence[Message]], str],
        protected: ProtectedTokens,
        thinking_markers: tuple[str, str],
    ) -> None:
        """Render with `render`; assistants, and only they, may write the thinking markers."""
        self._render = render
        self._protected = protected
        self._markers = frozenset(thinking_markers)
        self._thought_edge = re.compile(rf"(?:{'|'.join(map(re.escape, thinking_markers))})\s*")
        self._spellings = {protected.alias(marker): marker for marker in thinking_markers}
        opening, self._close_alias = self._spellings
        self._opening = re.compile(rf"{re.escape(opening)}\s*\Z")
        # Digits and private characters alone, which no change of case touches.
        self._secret = f"{secrets.randbelow(10**18):018}"
        self._mark = re.compile(rf"\ue004{self._secret}#(\d+)([<>])\ue005")
        self._end = f"\ue004{self._secret}\ue005"

    def render(self, messages: Sequence[Message], *, is_open: bool = False) -> RenderedText:
        """Render once for the text and once, with marks in the content, for the turns.

        An open chat ends within its last turn, space at the end included.

        Raises:
            RequestRejectedError: The template refuses the messages, or leaves out one's text.
        """
        hidden = [self._hide(message) for message in messages]
        text = self._protected.reveal(self._rendered(hidden, is_open=is_open))
        turns = self._turns(hidden, text, is_open=is_open)
        self._check_complete(hidden, text, turns)
        if is_open:
            self._check_open(hidden, text)
            if turns and turns[-1].index == len(messages) - 1:
                turns = (*turns[:-1], replace(turns[-1], stop=len(text)))
        return RenderedText(text, turns)

    def _check_open(self, hidden: Sequence[Message], text: str) -> None:
        """Check that a chat ends with all that its last turn has said, its thought included."""
        parts = [hidden[-1].get(name, "") for name in ("reasoning_content", "content")]
        thought, said = (self._normalized(self._protected.reveal(part)) for part in parts)
        written = self._normalized(text)
        if not written.endswith(said) or thought not in written:
            raise RequestRejectedError(
                "the model's chat template changes or drops part of the last message, which is to "
                "be continued; of a turn with a thought, continue the thought in content, or the "
                "answer alone",
                param=f"messages[{len(hidden) - 1}].content",
            )

    def _rendered(self, hidden: Sequence[Message], *, is_open: bool) -> str:
        """The template's text; where `is_open`, up to the end of the last message's content."""
        if not is_open:
            return self._render(hidden)
        # As transformers does it: trailing space stays where the template leaves it.
        tag = f"{self._end} "
        last = {**hidden[-1], "content": hidden[-1]["content"] + tag}
        rendered = self._render([*hidden[:-1], last])
        stop = rendered.rfind(self._end)
        if stop < 0:
            raise _left_out(hidden, len(hidden) - 1)
        kept = rendered[:stop]
        return kept if rendered.startswith(tag, stop) else kept.rstrip()

    def _hide(self, message: Message) -> dict[str, str]:
        is_own = message["role"] == "assistant"
        return {
            key: self._protected.hide(
                value, allowed=self._markers if is_own and key == "content" else frozenset()
            )
            for key, value in message.items()
        }

    def _turns(
        self, hidden: Sequence[Message], text: str, *, is_open: bool
    ) -> tuple[TurnSpan, ...] | None:
        """Spans of the contents in `text`; None where the template heeds the marks."""
        try:
            marked = self._rendered(self._marked(hidden), is_open=is_open)
        except RequestRejectedError:
            return None
        found, turns = self._strip_marks(self._protected.reveal(marked), hidden)
        return tuple(self._opened(text, turn) for turn in turns) if found == text else None

    def _marked(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Marks stand inside surrounding space, because templates trim it.

        One more start stands behind each end of a thought, because templates drop thoughts, or take
        them apart and write them anew.
        """
        marked = []
        for index, message in enumerate(messages):
            start, stop = self._marks(index)
            own = {**message, "content": self._inside(message["content"], start, stop)}
            if "reasoning_content" in message:  # the turn begins with it, where it is shown
                own["reasoning_content"] = self._inside(message["reasoning_content"], start, "")
            marked.append(own)
        return marked

    def _inside(self, text: str, start: str, stop: str) -> str:
        """A text with marks around what is not space at its ends."""
        core = text.strip()
        if not core:
            return text
        before, after = text.split(core, 1) if text != core else ("", "")
        core = self._thought_edge.sub(rf"\g<0>{start}", core)
        return f"{before}{start}{core}{stop}{after}"

    def _marks(self, index: int) -> tuple[str, str]:
        start = f"\ue004{self._secret}#{index}"
        return f"{start}<\ue005", f"{start}>\ue005"

    def _strip_marks(
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
                role = messages[index]["role"]
                turns.append(TurnSpan(starts.pop(index), length, role, index))
        return "".join([*parts, marked[end:]]), tuple(turns)

    def _opened(self, text: str, turn: TurnSpan) -> TurnSpan:
        """A turn with the marker that opens its thought, where the template wrote that anew."""
        if not turn.is_assistant:
            return turn
        found = self._opening.search(text, max(0, turn.start - _MAX_OPENING), turn.start)
        return turn if found is None else replace(turn, start=found.start())

    def _check_complete(
        self, hidden: Sequence[Message], text: str, turns: Sequence[TurnSpan] | None
    ) -> None:
        """Check that the text of every message is in the prompt, but for thoughts.

        Without turns it is looked for anywhere, as often as it was written.
        """
        wanted = [self._normalized_content(message) for message in hidden]
        if turns is None:
            whole, written = self._normalized(text), Counter(wanted)
            is_there = [not said or whole.count(said) >= written[said] for said in wanted]
        else:
            found = [""] * len(hidden)
            for turn in turns:
                found[turn.index] += self._normalized(text[turn.start : turn.stop])
            is_there = [said in own for said, own in zip(wanted, found, strict=True)]
        if not all(is_there):
            raise _left_out(hidden, is_there.index(False))

    def _normalized_content(self, message: Message) -> str:
        """The letters of a message, of an assistant's those after its thought."""
        content = self._protected.reveal(message["content"])
        if message["role"] == "assistant":
            content = content.rpartition(self._close_alias)[2]
        return self._normalized(content)

    def _normalized(self, text: str) -> str:
        """A text without what a template may change: space, case, and how a marker is known."""
        for alias, marker in self._spellings.items():
            text = text.replace(alias, marker)
        return "".join(text.split()).casefold()


def _left_out(messages: Sequence[Message], index: int) -> RequestRejectedError:
    param = f"messages[{index}].content"
    return RequestRejectedError(
        f"the model's chat template leaves out what {param} says, as {messages[index]['role']}; "
        "say it in a turn that the template writes",
        param=param,
    )
