"""Tiny stories of five sentences."""

from __future__ import annotations

import random

from .domain import with_article
from .lexicon import read

__all__ = ["STORY", "tell_story"]

STORY = "a wish for a story"
"""Name of the intent."""


def tell_story(rng: random.Random, animal: str) -> str:
    """Tell a story about an animal, given with its article."""
    words = read("small_talk")["story"]
    _, name = animal.split(" ", 1)
    hero = with_article(f"{rng.choice(words['traits'])} {name}")
    return (
        f"Once there was {hero} who lived {rng.choice(words['homes'])}. "
        f"One day the {name} found {rng.choice(words['finds'])}. {rng.choice(words['turns'])} "
        f"So the {name} {rng.choice(words['deeds'])}. {rng.choice(words['ends'])}"
    )
