"""Repeat-after-me dialogues, which teach the model to copy what it has not seen before."""

from __future__ import annotations

import random
from functools import cache

from .domains import groups, ordinary
from .multiple_choice import categories
from .reply import Reply

__all__ = ["ask_copy"]

_TEMPLATES = (
    "Repeat after me: {words}",
    "Say this: {words}",
    'Say "{words}".',
    "Please copy these words: {words}",
    "Echo: {words}",
)


@cache
def _vocabulary() -> tuple[str, ...]:
    words = {word for names in categories().values() for word in names}
    for domain in (*ordinary(), *groups()):
        for phrase in (*domain.nouns, *domain.adjectives):
            words.update(phrase.split())
    return tuple(sorted(words))


def ask_copy(rng: random.Random) -> tuple[str, Reply]:
    """Draw one to six words to be said again."""
    words = " ".join(rng.choices(_vocabulary(), k=rng.randint(1, 6)))
    reply = Reply(words, "The user wants these words back. I will copy them.")
    return rng.choice(_TEMPLATES).format(words=words), reply
