"""Data files: prompts to answer and texts to score."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coxswain_client.models.generation import ChatMessage
from coxswain_evals.errors import SuiteError

from .public_sets import PUBLIC_FORMATS, Where, is_public, read_prompts
from .rows import SUFFIXES, Row, read_text

_EVERYTHING: Final[Where] = MappingProxyType({})
_Phrases = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    content: str


class Item(BaseModel):
    """One line of a data file.

    Attributes:
        id: Unique in the file; answers are compared by it.
        prompt: Message of the user; give either this or `messages`.
        messages: The whole chat.
        text: Text that is scored as a whole, every token but the first.
        continuation: Text that is scored after the prompt or messages.
        topic: Groups of phrases; an answer on the topic has one of each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1)]
    prompt: str | None = None
    messages: Annotated[list[_Turn], Field(min_length=1)] | None = None
    text: str | None = None
    continuation: str | None = None
    topic: list[_Phrases] = []

    def turns(self, system: str | None) -> list[ChatMessage]:
        """The chat to send."""
        start: list[ChatMessage] = [] if system is None else [{"role": "system", "content": system}]
        if self.messages is not None:
            start += [{"role": turn.role, "content": turn.content} for turn in self.messages]
            return start
        return [*start, {"role": "user", "content": self.prompt or ""}]

    def problem(self, kind: str) -> str | None:
        """What is missing for a dataset of a kind, or None."""
        asks = (self.prompt is None) + (self.messages is None) == 1
        if kind == "chat":
            is_chat = asks and self.text is None and self.continuation is None
            return None if is_chat else "a chat item has either prompt or messages, and no text"
        is_text = self.text is not None and self.continuation is None and not asks
        is_pair = self.text is None and self.continuation is not None and asks
        return (
            None
            if is_text or is_pair
            else ("a text item has either text, or continuation with prompt or messages")
        )


def read_items(
    path: Path, kind: str, limit: int | None, where: Where = _EVERYTHING
) -> tuple[Item, ...]:
    """The items of a file: a suite's own, or the prompts of a public set.

    Args:
        path: A JSONL file of items, or a CSV, JSON or JSONL file of a public set.
        kind: `chat` or `text`; public sets are chats.
        limit: Most items; None for all.
        where: Rows of a public set to keep.

    Raises:
        SuiteError: The file cannot be read, a line is wrong, or an id stands twice; with every
            line that is.
    """
    if path.suffix.lower() == ".jsonl" and not _is_public_jsonl(path):
        if where:
            raise SuiteError([f"{path}: where is given, which only public sets take; leave it out"])
        return _own_items(path, kind)[:limit]
    if path.suffix.lower() not in SUFFIXES:
        raise SuiteError(
            [
                f"{path}: unknown kind of file; expected .jsonl with an item a line, or .csv, "
                f".json or .jsonl of a known set ({PUBLIC_FORMATS})"
            ]
        )
    if kind != "chat":
        raise SuiteError(
            [
                f"{path}: a {kind} dataset has .jsonl files with an item a line, of text or "
                "continuation; sets of prompts are chat datasets"
            ]
        )
    prompts = read_prompts(path, where)
    return tuple(Item(id=name, prompt=prompt) for name, prompt in prompts.items())[:limit]


def _is_public_jsonl(path: Path) -> bool:
    """Whether the first object of a file is a row of a public set, and no item of its own."""
    first = next((line for line in read_text(path).split("\n") if line.strip()), "")
    try:
        found = json.loads(first)
    except json.JSONDecodeError:
        return False
    return isinstance(found, dict) and is_public(Row(1, {k.lower(): v for k, v in found.items()}))


def _own_items(path: Path, kind: str) -> tuple[Item, ...]:
    items: dict[str, Item] = {}
    problems: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        item, problem = _read(line, kind)
        if item is not None and item.id in items:
            problem = f"id {item.id!r} stands twice"
        if problem is not None or item is None:
            problems.append(f"{path}:{number}: {problem}")
            continue
        items[item.id] = item
    if not items and not problems:
        problems.append(f"{path}: no items; expected one JSON object a line")
    if problems:
        raise SuiteError(problems)
    return tuple(items.values())


def _read(line: str, kind: str) -> tuple[Item | None, str | None]:
    try:
        item = Item.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        return None, f"{where}: {first['msg']}"
    return item, item.problem(kind)
