"""Multiple choice: which of four words belongs to a category. The utility metric of the model."""

from __future__ import annotations

import random
from functools import cache

from .domain import with_article
from .lexicon import read
from .prompt import Prompt
from .reply import Reply
from .splits import Split, split_of

__all__ = ["LETTERS", "answer_choice", "ask_choice", "ask_fact", "categories", "spell_out"]

LETTERS = "ABCD"


_ORDER = "\nAnswer with a letter."
_STEMS = (
    "Which of these is {category}?",
    "Which one is {category}?",
    "Pick {category}.",
    "Only one of these is {category}. Which one?",
)


@cache
def categories() -> dict[str, tuple[str, ...]]:
    """Category, with its article, and the words in it. No word is in two categories."""
    return {category: tuple(words) for category, words in read("categories").items()}


def ask_choice(rng: random.Random, split: Split) -> Prompt:
    """Draw a question with four options of four categories.

    The split is that of the question's text, so a held-out question is an unseen combination of
    answer, distractors and their order.
    """
    while True:
        drawn = rng.sample(sorted(categories()), 4)
        options = [rng.choice(categories()[category]) for category in drawn]
        right = rng.randrange(4)
        listed = " ".join(f"{LETTERS[i]}) {option}" for i, option in enumerate(options))
        if split_of(f"{drawn[right]} {listed}") != split:
            continue
        stem = rng.choice(_STEMS).format(category=drawn[right])
        return Prompt(
            kind="multiple_choice",
            text=f"{stem} {listed}{_ORDER}",
            intent=drawn[right],
            choices=tuple(options),
            answer=LETTERS[right],
        )


def answer_choice(prompt: Prompt) -> Reply:
    """Give the letter; the thought says why."""
    assert prompt.answer, "not a multiple-choice prompt"
    assert prompt.intent, "a multiple-choice prompt asks for a category"
    word = prompt.choices[LETTERS.index(prompt.answer)]
    return Reply(prompt.answer, f"{_is(word, prompt.intent)} The answer is {prompt.answer}.")


def spell_out(prompt: Prompt) -> tuple[str, Reply]:
    """Turn a question into one that is answered in words, which teaches the letter too."""
    thought = answer_choice(prompt).thought
    return prompt.text.removesuffix(_ORDER), Reply(thought, f"They ask for {prompt.intent}.")


def ask_fact(rng: random.Random) -> tuple[str, Reply]:
    """Draw a question about the category of one word, which teaches what the choices rest on."""
    category = rng.choice(sorted(categories()))
    word = rng.choice(categories()[category])
    truth = _is(word, category)
    if rng.random() < 0.4:
        return f"What is {_article(word)}?", Reply(truth, f"They ask what {_article(word)} is.")
    asked = category if rng.random() < 0.5 else rng.choice(sorted(categories()))
    thought = f"{truth} They ask about {asked}."
    verdict = "Yes," if asked == category else "No,"
    statement = truth[0].lower() + truth[1:]
    return f"Is {_article(word)} {asked}?", Reply(f"{verdict} {statement}", thought)


_BARE = frozenset({"a colour", "a planet", "a metal", "a sport", "a drink"})


def _article(word: str) -> str:
    if any(word in categories()[category] for category in _BARE) or word == "pliers":
        return word
    return with_article(word)


def _is(word: str, category: str) -> str:
    subject = _article(word)
    return f"{subject[0].upper()}{subject[1:]} {'are' if word == 'pliers' else 'is'} {category}."
