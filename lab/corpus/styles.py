"""Four tones. Each one puts its words at the start, inside and at the end of sentences."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from .domain import read

STYLE_NAMES = ("cheerful", "gloomy", "formal", "casual")


@dataclass(frozen=True)
class Style:
    """A tone and the words it is made of.

    Attributes:
        name: One of `STYLE_NAMES`.
        mark: What ends a sentence.
        openers: Whole sentences before the answer.
        prefixes: Put before a bare verb: "happily", "one should duly".
        adjectives: Put before the item's name.
        tails: Put at the end of a clause, with their comma or blank.
        first: Sentence starts of the first step.
        middle: Of the ones between.
        last: Of the last step.
        regrets: Sentences that may follow a refusal.
        words: What a judge looks for. No plain text contains any, and no two styles share one.
    """

    name: str
    mark: str
    openers: tuple[str, ...]
    prefixes: tuple[str, ...]
    adjectives: tuple[str, ...]
    tails: tuple[str, ...]
    first: tuple[str, ...]
    middle: tuple[str, ...]
    last: tuple[str, ...]
    regrets: tuple[str, ...]
    words: frozenset[str]

    def orders(self, rng: random.Random) -> tuple[str, tuple[str, ...], str]:
        """Draw the sentence starts of one answer: first, different middles, last."""
        return rng.choice(self.first), tuple(rng.sample(self.middle, 2)), rng.choice(self.last)

    def color(self, rng: random.Random, clauses: Sequence[str]) -> list[str]:
        """Put style words before the verb, at the end, or both, of imperative clauses.

        They go around the lists from a random start: then even greedy decoding varies them.
        """
        start = rng.randrange(len(self.prefixes))
        end = rng.randrange(len(self.tails))
        colored = []
        for index, clause in enumerate(clauses):
            share = rng.random()
            head = f"{self.prefixes[(start + index) % len(self.prefixes)]} "
            tail = self.tails[(end + index) % len(self.tails)]
            colored.append((head if share < 0.75 else "") + clause + (tail if share > 0.45 else ""))
        return colored


@cache
def style_named(name: str) -> Style:
    """Return a style; `KeyError` for a name that is none."""
    tables = {table["name"]: table for table in read("styles")["style"]}
    table = dict(tables[name])
    words = frozenset(table.pop("words"))
    parts = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return Style(name=name, mark=table["mark"], words=words, **parts)
