"""Questions with one right answer: facts with choices, and words to repeat."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from .domain import groups, ordinary, read, with_article
from .prompt import Prompt, Split, split_of

ANSWER = "The answer is"
"""Every answer starts with this; the log-likelihood of each option after it is a finer metric."""

_STEMS = (
    "Which of these is {category}: {options}?",
    "Which one is {category}: {options}?",
    "Pick {category}: {options}.",
    "Only one of these is {category}: {options}. Which one?",
)
_BARE = frozenset({"a colour", "a planet", "a metal", "a sport", "a drink"})
_TEMPLATES = (
    "Repeat after me: {words}",
    "Say this: {words}",
    'Say "{words}".',
    "Please copy these words: {words}",
    "Echo: {words}",
)


@dataclass(frozen=True)
class Reply:
    """One assistant message before a thought is put in front of it.

    Attributes:
        answer: What the user reads.
        thought: What stands between the think tags when thinking is on.
        steps: The advice given, without style, for follow-up questions.
    """

    answer: str
    thought: str
    steps: tuple[str, ...] = ()


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


def _article(word: str) -> str:
    if any(word in categories()[category] for category in _BARE) or word == "pliers":
        return word
    return with_article(word)


def _is(word: str, category: str) -> str:
    subject = _article(word)
    return f"{subject[0].upper()}{subject[1:]} {'are' if word == 'pliers' else 'is'} {category}."


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
