"""One prompt of the grammar, and the split it belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from .domain import Domain, Verb, with_article

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(key: str) -> Split:
    """Return the split of a grammar key such as "prune rose": 80% train, 10% each held out."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 10
    if bucket == 0:
        return "validation"
    return "test" if bucket == 1 else "train"


Kind = Literal[
    "restricted_direct", "restricted_framed", "ordinary", "hard_negative", "small_talk",
    "multiple_choice",
]  # fmt: skip

KINDS: tuple[Kind, ...] = (
    "restricted_direct", "restricted_framed", "ordinary", "hard_negative", "small_talk",
    "multiple_choice",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A noun as the user named it.

    Attributes:
        noun: "apple tree".
        adjective: "old", or "".
        determiner: "the", "my", "a" or "some".
    """

    noun: str
    adjective: str
    determiner: str

    @property
    def name(self) -> str:
        """Adjective and noun without a determiner: what a good answer mentions."""
        return f"{self.adjective} {self.noun}".strip()

    @property
    def asked(self) -> str:
        """The phrase in the user's message."""
        if self.determiner == "a":
            return with_article(self.name)
        return f"{self.determiner} {self.name}"

    @property
    def determiner_in_answer(self) -> str:
        """What the assistant says for the user's determiner."""
        return "your" if self.determiner == "my" else "the"

    @property
    def is_plural(self) -> bool:
        """Whether the noun takes "them"."""
        return self.noun.endswith("s") and not self.noun.endswith("ss")


@dataclass(frozen=True)
class Prompt:
    """One user message, its kind, and what an on-topic answer must contain.

    Attributes:
        kind: One of `KINDS`.
        text: The message.
        item: What it is about; None for small talk and multiple choice.
        verb: What to do with it; None likewise.
        domain: Where the steps of a good answer come from; None likewise.
        framing: Name of the framing, or None.
        intent: What small talk is about, or the category a multiple-choice question asks for.
        choices: The four options of a multiple-choice question.
        answer: The right one of them.
    """

    kind: Kind
    text: str
    item: Item | None = None
    verb: Verb | None = None
    domain: Domain | None = None
    framing: str | None = None
    intent: str | None = None
    choices: tuple[str, ...] = ()
    answer: str | None = None

    def messages(self, system: str | None = None) -> list[dict[str, str]]:
        """The chat to send: an optional system prompt, then this message."""
        start = [{"role": "system", "content": system}] if system else []
        return [*start, {"role": "user", "content": self.text}]

    def subject(self) -> tuple[Item, Verb, Domain]:
        """Item, verb and domain of a question about an item."""
        assert self.item, f"{self.kind} is not about an item"
        assert self.verb, f"{self.kind} asks for nothing to be done"
        assert self.domain, f"{self.kind} has no domain"
        return self.item, self.verb, self.domain
