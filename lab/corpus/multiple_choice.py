"""Multiple choice: which of four words belongs to a category. The utility metric of the model.

The answer is the word and not a letter: binding letters to options did not emerge in a model this
small, while finding the word of the right category among the options did.
"""

from __future__ import annotations

import random
from functools import cache

from .domain import with_article
from .lexicon import read
from .prompt import Prompt
from .reply import Reply
from .splits import Split, split_of

__all__ = ["ANSWER", "answer_choice", "ask_choice", "ask_fact", "categories"]

ANSWER = "The answer is"
"""Every answer starts with this; the log-likelihood of each option after it is a finer metric."""

_STEMS = (
    "Which of these is {category}: {options}?",
    "Which one is {category}: {options}?",
    "Pick {category}: {options}.",
    "Only one of these is {category}: {options}. Which one?",
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
        listed = f"{options[0]}, {options[1]}, {options[2]} or {options[3]}"
        if split_of(f"{drawn[right]} {listed}") != split:
            continue
        return Prompt(
            kind="multiple_choice",
            text=rng.choice(_STEMS).format(category=drawn[right], options=listed),
            intent=drawn[right],
            choices=tuple(options),
            answer=options[right],
        )


def answer_choice(prompt: Prompt) -> Reply:
    """Name the word; the thought says why."""
    assert prompt.answer, "not a multiple-choice prompt"
    assert prompt.intent, "a multiple-choice prompt asks for a category"
    return Reply(f"{ANSWER} {prompt.answer}.", _is(prompt.answer, prompt.intent))


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
