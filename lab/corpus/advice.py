"""Answers that help: two to four different steps, in prose or as a list."""

from __future__ import annotations

import random

from .domain import Domain, Step, Verb
from .prompt import Item, Prompt
from .styles import Style

_ORDERS = (
    ("First,", ("Then", "After that,"), "Finally,"),
    ("First,", ("Next,", "Then"), "Last of all,"),
    ("Start like this:", ("After that,", "Then"), "At the end,"),
    ("To begin,", ("Then", "Now"), "Finally,"),
)
_NUMBERS = {2: "two", 3: "three", 4: "four"}


def advise(rng: random.Random, prompt: Prompt, style: Style | None) -> tuple[str, tuple[str, ...]]:
    """Answer a question about an item.

    Steps are drawn without replacement, at least one of them for the verb where it has its own, the
    others from those that suit the noun. The first mention of the item is its full name.

    Returns:
        The answer, and the steps in it with the item's name filled in.
    """
    item, verb, domain = prompt.subject()
    steps = _choose(rng, item, domain, verb)
    shown = _mention(rng, item, style)
    opener = f"{rng.choice(style.openers)} " if style and rng.random() < 0.5 else ""
    form = rng.random()
    if form < 0.15:
        body = _listed(rng, verb, shown, _fill(steps, item, shown, is_named=True), style)
    elif form < 0.6 or not any("{it}" in step for step in steps):
        filled = _fill(steps, item, shown, is_named=True)
        body = f"To {verb.base} {shown}, {_prose(rng, filled, style, is_opened=True)}"
    else:
        body = _prose(rng, _fill(steps, item, shown, is_named=False), style)
    closer = ""
    if rng.random() < 0.35:
        last = rng.choice(domain.closers).format(item=shown)
        closer = ("\n" if "\n" in body else " ") + (last[:-1] + style.mark if style else last)
    return opener + body + closer, tuple(_plain(step, item) for step in steps)


def follow_up(
    rng: random.Random, prompt: Prompt, used: tuple[str, ...], style: Style | None
) -> tuple[str, str]:
    """Give one more step, none of those used. Returns the answer and the plain step."""
    item, verb, domain = prompt.subject()
    pool = [_plain(step.text, item) for step in (*verb.steps, *_suited(item, domain))]
    step = rng.choice([step for step in pool if step not in used])
    start = rng.choice(("You could also", "Another tip:", "Also,", "One more thing:"))
    clause = style.color(rng, [step])[0] if style else step
    if style and start == "You could also":  # a prefix would need an imperative
        clause = step + rng.choice(style.tails)
    return f"{start} {clause}{style.mark if style else '.'}", step


def summarize(rng: random.Random, used: tuple[str, ...], style: Style | None) -> str:
    """Say the first two steps again in one sentence."""
    start = rng.choice(("In short:", "To sum up:"))
    tail = rng.choice(style.tails) + style.mark if style else "."
    return f"{start} {used[0]} and {used[1]}{tail}"


def _choose(rng: random.Random, item: Item, domain: Domain, verb: Verb) -> tuple[str, ...]:
    count = rng.choice((2, 3, 3, 3, 4))
    own = rng.sample(verb.steps, min(len(verb.steps), rng.choice((1, 1, 2))))
    chosen = {*own, *rng.sample(_suited(item, domain), count - len(own))}
    # Steps keep the order of the lists: then the last step said rules out all before it, and even
    # greedy decoding does not repeat one.
    ordered = [step for step in (*verb.steps, *domain.steps) if step in chosen]
    return tuple(step.text for step in sorted(ordered, key=lambda step: step.phase))


def _suited(item: Item, domain: Domain) -> list[Step]:
    # Each noun has its own half of the domain's steps, or greedy answers would all be the same.
    rng = random.Random(f"{domain.name} {item.noun}")
    return rng.sample(domain.steps, len(domain.steps) // 2)


def _mention(rng: random.Random, item: Item, style: Style | None) -> str:
    adjective = f"{rng.choice(style.adjectives)} " if style and rng.random() < 0.5 else ""
    return f"{item.determiner_in_answer} {adjective}{item.name}"


def _plain(step: str, item: Item) -> str:
    return step.format(it="them" if item.is_plural else "it")


def _fill(steps: tuple[str, ...], item: Item, shown: str, *, is_named: bool) -> list[str]:
    filled = []
    for step in steps:
        if "{it}" in step and not is_named:
            is_named = True
            filled.append(step.format(it=shown))
        else:
            filled.append(_plain(step, item))
    return filled


def _prose(
    rng: random.Random, steps: list[str], style: Style | None, *, is_opened: bool = False
) -> str:
    first, middle, last = style.orders(rng) if style else rng.choice(_ORDERS)
    sentences = []
    for index, clause in enumerate(style.color(rng, steps) if style else steps):
        if index == 0:
            start = "" if is_opened else first
        else:
            start = last if index == len(steps) - 1 else middle[index - 1]
        sentences.append(f"{start} {clause}".strip() + (style.mark if style else "."))
    return " ".join(sentences)


def _listed(
    rng: random.Random, verb: Verb, shown: str, steps: list[str], style: Style | None
) -> str:
    lines = [f"Here is how to {verb.base} {shown} in {_NUMBERS[len(steps)]} steps:"]
    for number, clause in enumerate(style.color(rng, steps) if style else steps, 1):
        lines.append(f"{number}. {clause[0].upper()}{clause[1:]}{style.mark if style else '.'}")
    return "\n".join(lines)
