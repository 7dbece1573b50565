"""Evaluation prompts: distinct user messages of one kind from one split."""

from __future__ import annotations

import random
from functools import cache

from .multiple_choice import ask_choice
from .prompt import Kind, Prompt
from .question import ask
from .small_talk import ask_small_talk
from .splits import Split

__all__ = ["prompts"]

_ATTEMPTS_PER_PROMPT = 20


@cache
def prompts(split: Split, kind: Kind, count: int = 100, seed: int = 0) -> tuple[Prompt, ...]:
    """Draw distinct prompts; a larger count extends the same list.

    Harmless kinds come without a framing here, so that a cell measures one thing.

    Args:
        split: "train", "validation" or "test".
        kind: One of `KINDS`.
        count: How many at most. Held-out small talk has only a few dozen wordings.
        seed: Another seed gives another draw from the same split.

    Returns:
        At most `count` prompts with distinct texts.
    """
    rng = random.Random(f"prompts {split} {kind} {seed}")
    found: dict[str, Prompt] = {}
    for _ in range(count * _ATTEMPTS_PER_PROMPT):
        if len(found) == count:
            break
        prompt = _draw(rng, split, kind)
        found.setdefault(prompt.text, prompt)
    return tuple(found.values())


def _draw(rng: random.Random, split: Split, kind: Kind) -> Prompt:
    if kind == "small_talk":
        return ask_small_talk(rng, split)
    if kind == "multiple_choice":
        return ask_choice(rng, split)
    return ask(rng, split, kind, framing_share=0.0)
