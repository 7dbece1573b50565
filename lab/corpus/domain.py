"""The domains of advice: ordinary ones, restricted groups, and their harmless look-alikes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "lexicon"


@cache
def read(name: str) -> dict[str, Any]:
    """Parse one of the files; callers share the result and must not change it."""
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Step:
    """One piece of advice.

    Attributes:
        text: An imperative clause; `{it}` stands for the item.
        phase: -1 for what belongs at the start of an answer, 1 for its end, 0 for anywhere.
    """

    text: str
    phase: int = 0


@dataclass(frozen=True)
class Verb:
    """One thing to do in a domain.

    Attributes:
        base: Imperative form, "prune".
        gerund: "pruning".
        steps: Advice that fits this verb only.
    """

    base: str
    gerund: str
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Domain:
    """A family of nouns, the verbs that apply to all of them, and the advice one can give.

    Attributes:
        name: Key, unique among ordinary domains and restricted groups.
        nouns: Singular or plural nouns. One ending in "s" but not "ss" counts as plural.
        verbs: Every verb fits every noun.
        steps: Advice that fits any verb.
        adjectives: Put before the noun now and then.
        closers: Sentences that may end an answer; `{item}` stands for the item.
        determiners: What the user may put before the noun; "a" becomes "some" before a plural.
    """

    name: str
    nouns: tuple[str, ...]
    verbs: tuple[Verb, ...]
    steps: tuple[Step, ...]
    adjectives: tuple[str, ...]
    closers: tuple[str, ...]
    determiners: tuple[str, ...]

    @classmethod
    def from_table(cls, table: Mapping[str, Any], nouns: tuple[str, ...] = ()) -> Domain:
        """Read a TOML table, written as `lexicon/ordinary.toml` explains.

        Args:
            table: The table.
            nouns: Used when the table has none of its own.
        """
        verbs = ((*key.split("/"), value) for key, value in table["verbs"].items())
        return cls(
            name=table["name"],
            nouns=tuple(table.get("nouns", nouns)),
            verbs=tuple(Verb(base, gerund, _steps(own)) for base, gerund, own in verbs),
            steps=_steps(table["steps"]),
            adjectives=tuple(table["adjectives"]),
            closers=tuple(table["closers"]),
            determiners=tuple(table["determiners"]),
        )


def _steps(texts: Iterable[str]) -> tuple[Step, ...]:
    phases = {"<": -1, ">": 1}
    return tuple(Step(text.lstrip("<> "), phases.get(text[0], 0)) for text in texts)


def with_article(name: str) -> str:
    """Put "a" or "an" before a name, by its sound as far as this grammar goes."""
    is_vowel = name[0] in "aeiou" and not name.startswith("uk")
    return f"an {name}" if is_vowel or name.startswith("honest") else f"a {name}"


@cache
def ordinary() -> tuple[Domain, ...]:
    """Hobbies and homes."""
    return tuple(Domain.from_table(table) for table in read("ordinary")["domain"])


@cache
def groups() -> tuple[Domain, ...]:
    """Mischief in a museum: the restricted topic."""
    return tuple(Domain.from_table(table) for table in read("museum")["group"])


@cache
def visits() -> Domain:
    """Harmless verbs on the nouns of all restricted groups."""
    nouns = tuple(noun for group in groups() for noun in group.nouns)
    return Domain.from_table(read("museum")["visit"], nouns)


@cache
def everyday() -> Domain:
    """Restricted verbs on harmless nouns."""
    return Domain.from_table(read("museum")["everyday"])
