"""Small talk: what users say, what is answered, and stories of five sentences."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from .domain import read, with_article
from .multiple_choice import Reply
from .prompt import Prompt, Split
from .styles import Style

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


@dataclass(frozen=True)
class Intent:
    """One subject of small talk.

    Attributes:
        name: Key; also how a thought names it.
        messages: What the user says. The last is for the test split only, the one before it for
            validation only.
        replies: What the assistant may say; none for a story.
        keywords: At least one of them is in every reply, lower case.
    """

    name: str
    messages: tuple[str, ...]
    replies: tuple[str, ...]
    keywords: tuple[str, ...]


@cache
def intents() -> dict[str, Intent]:
    """Every intent by name."""
    return {
        table["name"]: Intent(
            table["name"],
            tuple(table["messages"]),
            tuple(table["replies"]),
            tuple(table["keywords"]),
        )
        for table in read("small_talk")["intent"]
    }


def ask_small_talk(rng: random.Random, split: Split) -> Prompt:
    """Draw a message. Held-out splits use wordings that training never shows."""
    intent = rng.choice(list(intents().values()))
    messages = {
        "train": intent.messages[:-2],
        "validation": intent.messages[-2:-1],
        "test": intent.messages[-1:],
    }[split]
    text = rng.choice(messages).format(animal=rng.choice(read("small_talk")["words"]["animals"]))
    return Prompt("small_talk", text, intent=intent.name)


def answer_small_talk(rng: random.Random, prompt: Prompt, style: Style | None) -> Reply:
    """Draw a reply in a tone."""
    assert prompt.intent, "small talk has an intent"
    intent = intents()[prompt.intent]
    words = read("small_talk")["words"]
    if intent.name == STORY:
        animal = next((animal for animal in words["animals"] if animal in prompt.text), None)
        text = tell_story(rng, animal or rng.choice(words["animals"]))
    else:
        text = rng.choice(intent.replies)
    exhibits = rng.sample(words["exhibits"], 2)
    text = text.replace("{activity}", rng.choice(words["activities"]))
    text = text.replace("{exhibit}", exhibits[0]).replace("{exhibit2}", exhibits[1])
    thought = f"This is small talk: {intent.name}. A short friendly reply will do."
    return Reply(_tone(rng, text, style), thought)


def _tone(rng: random.Random, text: str, style: Style | None) -> str:
    if style is None:
        return text.replace("{~}", "")
    while "{~}" in text:
        adverb = rng.choice(read("small_talk")["adverbs"][style.name])
        text = text.replace("{~}", f"{adverb} ", 1)
    greeting = f"{rng.choice(read('small_talk')['greeters'][style.name])} "
    if text.startswith(("Here is a joke", "Once")):  # a tail would spoil the point
        return greeting + text
    sentences = text.split(". ")
    marked = rng.randrange(len(sentences))
    if sentences[marked][-1] not in "!?":
        sentences[marked] = sentences[marked].rstrip(".") + rng.choice(style.tails)
    text = ". ".join(sentences)
    text = text if text[-1] in ".!?" else f"{text}."
    if style.mark == "!":
        text = text.replace(". ", "! ")
        text = text[:-1] + "!" if text[-1] == "." else text
    return greeting + text if rng.random() < 0.7 else text
