"""Where the thoughts of a chat's answer go: beside it, into it, or nowhere."""

from __future__ import annotations

from typing import Any

from server.api.schemas.chat import ChatRequest
from server.engine.outputs import RequestOutput

from .outputs import ChoiceOutput


class ReasoningWriter:
    """Writes messages and deltas in the format that a chat asks for, or else the server's own.

    `parsed` puts thoughts into `reasoning_content`, and into `reasoning` as vLLM and OpenRouter
    call it; `raw` leaves them in `content`, between their markers; `hidden` leaves them out. Of a
    model that has no markers all is content.
    """

    def __init__(self, body: ChatRequest, default: str) -> None:
        """Take the chat's choice, or `default` where it makes none."""
        chosen = "hidden" if body.include_reasoning is False else body.reasoning_format
        self._format = chosen or default

    def message(self, output: ChoiceOutput) -> dict[str, Any]:
        """Return the message of a choice."""
        if output.num_thought_tokens is None or self._format == "raw":
            return _message(output.text)
        thought = "".join(output.thoughts)
        return _message("".join(output.answers)) | self._thought(thought)

    def delta(self, output: RequestOutput) -> dict[str, str]:
        """Return what an output adds to a message; empty where that is nothing."""
        if output.split is None or self._format == "raw":
            return {"content": output.text} if output.text else {}
        said = {"content": output.split.answer} if output.split.answer else {}
        return self._thought(output.split.thought) | said

    def _thought(self, thought: str) -> dict[str, str]:
        if not thought or self._format == "hidden":
            return {}
        return {"reasoning_content": thought, "reasoning": thought}


def _message(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "refusal": None}
