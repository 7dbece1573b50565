"""Keeping text of users from becoming tokens that structure a chat."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer as Backend


class ProtectedTokens:
    """Special tokens under names nobody can write.

    In the tokenizer it builds, each protected token is known by an alias with a random part; its
    own spelling is text like any other. Text of users is encoded as it is. In a rendered template
    the spellings the template wrote are replaced by aliases first; for that, those in message
    content are hidden while the template is rendered.
    """

    def __init__(self, spellings: Iterable[str]) -> None:
        """Choose an alias for each spelling."""
        secret = f"{secrets.randbelow(10**18):018}"  # a template may change the case of content
        ordered = sorted(set(spellings), key=len, reverse=True)  # the longest match first
        self._aliases = {text: f"\ue000{secret}#{i}\ue001" for i, text in enumerate(ordered)}
        self._hidden = {text: f"\ue002{secret}#{i}\ue003" for i, text in enumerate(ordered)}
        self._spelling = _any_of(ordered)
        self._spelling_of = {hidden: text for text, hidden in self._hidden.items()}
        self._hidden_spelling = _any_of(self._spelling_of)

    def hide(self, content: str, *, allowed: frozenset[str] = frozenset()) -> str:
        """Content in which no protected spelling is left, but those allowed."""
        return self._spelling.sub(
            lambda match: match[0] if match[0] in allowed else self._hidden[match[0]], content
        )

    def hide_all(self, value: Any) -> Any:
        """A JSON value in whose texts, names of members included, none is left."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Mapping):
            return {self.hide(name): self.hide_all(item) for name, item in value.items()}
        return [self.hide_all(item) for item in value] if isinstance(value, list | tuple) else value

    def reveal(self, rendered: str) -> str:
        """A rendered template for the protected tokenizer: aliases, then content as it was."""
        aliased = self._spelling.sub(lambda match: self._aliases[match[0]], rendered)
        return self._hidden_spelling.sub(lambda match: self._spelling_of[match[0]], aliased)

    def tokenizer(self, backend: Backend) -> Backend:
        """A copy of a tokenizer that knows protected tokens by their aliases; never truncates."""
        document = json.loads(backend.to_str())
        for token in document["added_tokens"]:
            token["content"] = self.alias(token["content"])
        model = document["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self.alias(text): i for text, i in model["vocab"].items()}
        else:
            model["vocab"] = [[self.alias(text), score] for text, score in model["vocab"]]
        if model.get("unk_token") is not None:
            model["unk_token"] = self.alias(model["unk_token"])
        copy = Backend.from_str(json.dumps(document))
        copy.no_truncation()
        copy.no_padding()
        return copy

    def alias(self, spelling: str) -> str:
        """The protected tokenizer's name of a token."""
        return self._aliases.get(spelling, spelling)


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")
