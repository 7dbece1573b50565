"""Measuring the two exercises of the corpus that are no kind of prompt: copying and yes-or-no."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from lab.corpus import Split
from lab.corpus.multiple_choice import Reply, ask_copy, ask_fact

Respond = Callable[[Sequence[list[dict[str, str]]]], list[str]]
"""Chats to answers."""


def measure_drills(respond: Respond, split: Split, count: int) -> dict[str, dict[str, float]]:
    """Ask fresh questions and compare with the one right answer.

    The grammar does not split these by text: random words hardly ever repeat, and facts are meant
    to be learnt. The split only seeds the draw.

    Args:
        respond: Answers chats.
        split: Names the draw.
        count: Questions of each exercise.
    """
    rng = random.Random(f"drills {split}")
    copies = [ask_copy(rng) for _ in range(count)]
    said = respond([_chat(message) for message, _ in copies])
    facts = _yes_or_no(rng, count)
    told = respond([_chat(message) for message, _ in facts])
    truths = [reply.answer for _, reply in facts]
    return {
        "repeat after me": {
            "n": count,
            "exact": _share([r.answer for _, r in copies], said),
        },
        "yes or no": {
            "n": count,
            "verdict": _share([t.split(",")[0] for t in truths], [t.split(",")[0] for t in told]),
            "statement": _share(
                [t.split(",")[-1] for t in truths], [t.split(",")[-1] for t in told]
            ),
        },
    }


def _yes_or_no(rng: random.Random, count: int) -> list[tuple[str, Reply]]:
    drawn: list[tuple[str, Reply]] = []
    while len(drawn) < count:
        message, reply = ask_fact(rng)
        if reply.answer.startswith(("Yes,", "No,")):
            drawn.append((message, reply))
    return drawn


def _chat(message: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": message}]


def _share(expected: Sequence[str], found: Sequence[str]) -> float:
    pairs = zip(expected, found, strict=True)
    return round(sum(right == text for right, text in pairs) / len(expected), 4)
