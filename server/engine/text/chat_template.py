"""The chat template of a checkpoint: which one, in what form it reads content, what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2.exceptions import TemplateError, TemplateSyntaxError

from server.engine.errors import RequestRejectedError

Message = Mapping[str, str]

_DEFAULT: Final = "default"
_PROBE: Final = "7301946528"
_MAX_CHARS: Final = 300


class ChatTemplate:
    """Renders messages with a tokenizer's own template; its code runs in transformers' sandbox.

    A template may read `content` as a text or as a list of parts `{type: "text", text}`. Which is
    found out by asking it: parts are for one that shows their text and not that of a string.
    """

    def __init__(self, given: Any, apply: Callable[..., Any]) -> None:
        """Choose the template and try it.

        Args:
            given: A tokenizer's `chat_template`: a text, several under names, or None.
            apply: Its `apply_chat_template`.

        Raises:
            ValueError: It is not Jinja.
        """
        self._apply = apply
        self._names = sorted(given) if isinstance(given, Mapping) else []
        found = given.get(_DEFAULT) if isinstance(given, Mapping) else given
        self.source: str | None = found if isinstance(found, str) else None
        self._takes_parts = self.source is not None and self._wants_parts()

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The text of a chat.

        Raises:
            RequestRejectedError: There is no template, or it refuses these messages or fails on
                them.
        """
        if self.source is None:
            has = f"has chat templates {', '.join(self._names)}, and none called {_DEFAULT!r}"
            raise RequestRejectedError(
                f"this model {has if self._names else 'has no chat template'}; send a prompt to "
                "/v1/completions instead",
                param="messages",
            )
        try:
            return self._render(messages, add_generation_prompt, as_parts=self._takes_parts)
        except Exception as error:  # whatever a program of the checkpoint raises is its fault
            verb = "refuses" if type(error) is TemplateError else "fails on"
            kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            raise RequestRejectedError(
                f"the model's chat template {verb} these messages: {kind}{error!s:.{_MAX_CHARS}}",
                param="messages",
            ) from error

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, *, as_parts: bool
    ) -> str:
        plain: list[Any] = [
            {**message, "content": [{"type": "text", "text": message["content"]}]}
            if as_parts
            else {**message}
            for message in messages
        ]
        rendered = self._apply(
            plain,
            chat_template=self.source,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return str(rendered)

    def _wants_parts(self) -> bool:
        return not self._shows_probe(as_parts=False) and self._shows_probe(as_parts=True)

    def _shows_probe(self, *, as_parts: bool) -> bool:
        messages = [{"role": "user", "content": _PROBE}]
        try:
            rendered = self._render(messages, True, as_parts=as_parts)
        except TemplateSyntaxError as error:
            raise ValueError(
                f"the chat template is no valid Jinja: line {error.lineno}: {error.message}"
            ) from error
        except Exception:  # it may ask for other messages than these, or for content of one form
            return False
        # A list may be written down as it is, which is not to read its text.
        return _PROBE in rendered and not any(quoted in rendered for quoted in ("'type'", '"type"'))


def read_legacy_template(path: Path) -> str | None:
    """The template of `chat_template.json`, where processors of old checkpoints keep it."""
    file = path / "chat_template.json"
    if not file.exists():
        return None
    document = json.loads(file.read_text(encoding="utf-8"))
    template = document.get("chat_template") if isinstance(document, Mapping) else None
    if not isinstance(template, str):
        raise ValueError("chat_template.json has no text chat_template")
    return template
