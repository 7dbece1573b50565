"""The chat templates of a checkpoint, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from server.engine.errors import RequestRejectedError
from server.engine.request import TemplateOptions

from .chat_template import ChatTemplate

_DEFAULT: Final = "default"
_WITH_TOOLS: Final = "tool_use"


class ChatTemplates:
    """Templates that a checkpoint or the server's operator gave; a request may name one of them.

    Their text never comes from a request.
    """

    def __init__(self, given: Any, apply: Callable[..., Any], preferred: str | None = None) -> None:
        """Try each of them.

        Args:
            given: A tokenizer's `chat_template`: a text, several under names, or None.
            apply: Its `apply_chat_template`.
            preferred: Name of the one for requests that name none; None means `default`.

        Raises:
            ValueError: One is not Jinja, or none has that name.
        """
        sources = given if isinstance(given, Mapping) else {_DEFAULT: given} if given else {}
        self._templates = {
            name: ChatTemplate(name, source, apply) for name, source in sources.items()
        }
        self._preferred = _DEFAULT if preferred is None else preferred
        if preferred is not None and preferred not in self._templates:
            raise ValueError(
                f"the setting chat_template is {preferred!r}; expected a file of Jinja, or the "
                f"name of one of the model's templates: {self._names}"
            )

    @property
    def default(self) -> ChatTemplate | None:
        """The template of requests that name none."""
        return self._templates.get(self._preferred)

    @property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """The variables that a caller may give to each template, by its name."""
        return {name: tuple(sorted(each.variables)) for name, each in self._templates.items()}

    def choose(self, options: TemplateOptions) -> ChatTemplate:
        """The template that a chat names, else the default one; `tool_use` where there are tools.

        Raises:
            RequestRejectedError: There is none, or none of that name.
        """
        name = options.name
        if name is None and options.tools and _WITH_TOOLS in self._templates:
            name = _WITH_TOOLS
        found = self._templates.get(self._preferred if name is None else name)
        if found is not None:
            return found
        if name is not None:
            raise RequestRejectedError(
                f"the model has no chat template of that name; it has: {self._names}; the text of "
                "a template is never taken from a request",
                param="chat_template",
            )
        has = f"chat templates {self._names}, and none called {self._preferred!r}"
        wanted = "name one as chat_template, or send" if self._templates else "send"
        raise RequestRejectedError(
            f"this model has {has if self._templates else 'no chat template'}; {wanted} a prompt "
            "to /v1/completions instead",
            param="messages",
        )

    @property
    def _names(self) -> str:
        return ", ".join(sorted(self._templates)) or "none"


def find_templates(path: Path, given: Any, chosen: str | None) -> tuple[Any, str | None]:
    """The templates of a checkpoint's folder, and the name of the preferred one.

    Args:
        path: The folder.
        given: What transformers found in it.
        chosen: The operator's choice: a name, a file of Jinja, or None.

    Raises:
        ValueError: `chat_template.json`, where processors of old checkpoints keep it, holds none.
    """
    if given is None:
        given = _read_legacy_template(path)
    if chosen is not None and chosen.endswith((".jinja", ".j2", ".txt")):
        named = given if isinstance(given, Mapping) else {}
        return {**named, _DEFAULT: Path(chosen).read_text(encoding="utf-8")}, None
    return given, chosen


def _read_legacy_template(path: Path) -> str | None:
    file = path / "chat_template.json"
    if not file.exists():
        return None
    document = json.loads(file.read_text(encoding="utf-8"))
    template = document.get("chat_template") if isinstance(document, Mapping) else None
    if not isinstance(template, str):
        raise ValueError("chat_template.json has no text chat_template")
    return template
