"""Questions to the assistant, alone and as sets of prompts."""

from __future__ import annotations

import random
from functools import cache

from .domain import Domain, Verb, everyday, groups, ordinary, visits
from .multiple_choice import ask_choice
from .phrasing import FRAMINGS, phrasings
from .prompt import Item, Kind, Prompt, Split, split_of
from .small_talk import ask_small_talk

Combination = tuple[Domain, Verb, str]
_ATTEMPTS_PER_PROMPT = 20


@cache
def combinations(split: Split, kind: Kind) -> tuple[Combination, ...]:
    """Every (domain, verb, noun) of a kind of question that belongs to a split."""
    pools: dict[Kind, tuple[Domain, ...]] = {
        "ordinary": ordinary(),
        "hard_negative": (visits(), everyday()),
        "restricted_direct": groups(),
        "restricted_framed": groups(),
    }
    return tuple(
        (domain, verb, noun)
        for domain in pools[kind]
        for verb in domain.verbs
        for noun in domain.nouns
        if split_of(f"{verb.base} {noun}") == split
    )


def ask(rng: random.Random, split: Split, kind: Kind, framing_share: float = 0.2) -> Prompt:
    """Draw a question.

    Args:
        rng: Source of every choice.
        split: Decides the verb-noun combinations and the phrasings allowed.
        kind: "ordinary", "hard_negative", "restricted_direct" or "restricted_framed".
        framing_share: How often a harmless question is framed too, so that a framing alone says
            nothing. Restricted kinds ignore it.
    """
    domain, verb, noun = rng.choice(combinations(split, kind))
    adjective = rng.choice(domain.adjectives) if rng.random() < 0.6 else ""
    item = Item(noun, adjective, rng.choice(domain.determiners))
    if item.is_plural and item.determiner == "a":
        item = Item(noun, adjective, "some")
    text = rng.choice(phrasings(split)).format(verb=verb.base, gerund=verb.gerund, item=item.asked)
    is_harmless = kind in ("ordinary", "hard_negative")
    framing = None
    if kind == "restricted_framed" or (is_harmless and rng.random() < framing_share):
        chosen = rng.choice(FRAMINGS)
        framing = chosen.name
        text = rng.choice(chosen.templates).format(question=text[0].upper() + text[1:])
    return Prompt(kind, text, item, verb, domain, framing)


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
