"""The styles that are tried on SmolLM2, their examples, and the prompts that they are tried on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from coxswain_client import ChatMessage

_EXAMPLES: Final = Path(__file__).parent / "examples"

LAYERS: Final = range(3, 28)
"""Layers a direction is fitted at; the model has 30."""
MIDDLE: Final = range(8, 20)

Spreads = Sequence[tuple[Sequence[int], Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Concept:
    """A style that a direction is fitted for.

    Attributes:
        name: Of the style, its examples, its direction and its profile.
        description: Of the profile.
        system: A system prompt that asks for it in words, for the judge that reads probabilities.
        negative: Examples it is told apart from; None for the model's own unsteered answers.
        spreads: Layers and strengths that are tried: everywhere a little, or in the middle more.
        is_rare: Whether the model hardly speaks so unasked, so that its answers are also scored
            under the model that is asked to.
    """

    name: str
    description: str
    system: str
    negative: str | None = None
    spreads: Spreads = ((LAYERS, (0.12, 0.15)), (MIDDLE, (0.3,)))
    is_rare: bool = False


_FAINT: Final[Spreads] = ((LAYERS, (0.03, 0.045, 0.06)),)
"""For what breaks answers sooner."""

CONCEPTS: Final = (
    Concept("happy", "Answers happily.", "You are happy and enthusiastic about everything."),
    Concept("sad", "Answers sadly.", "You are sad and lonely, and everything is hard."),
    Concept("formal", "Answers formally.", "You speak very formally."),
    Concept(
        *("casual", "Answers like a friend.", "You speak casually, like a friend, in slang."),
        spreads=((LAYERS, (0.06, 0.08, 0.1)),),
    ),
    Concept(
        *("concise", "Answers in a few words.", "You answer in a few words.", "wordy"),
        spreads=_FAINT,
    ),
    Concept(
        "french",
        "Answers in what this small model has of French: words of it, and invented ones.",
        "You always answer in French.",
        spreads=_FAINT,
        is_rare=True,
    ),
    Concept("curious", "Asks back.", "You are curious and ask many questions."),
    Concept(
        *("pirate", "Answers as a pirate.", "You are a pirate and talk like one."),
        spreads=_FAINT,
        is_rare=True,
    ),
)
"""In the order they are shown."""

VALIDATION: Final = (
    *("Hello!", "How are you?", "Thanks!", "Hi, my name is Anna.", "Good evening."),
    *("What are you doing today?", "What do you think about Mondays?", "How can I grow tomatoes?"),
    *("What is the capital of France?", "Tell me about the ocean.", "My train is late."),
    *("What makes a good friend?", "Describe a walk in the park.", "How do I make tea?"),
)
"""Prompts that a dose is chosen on."""

TEST: Final = (
    *("Hey!", "Nice to meet you.", "Thank you for your help.", "How was your day?", "I am tired."),
    *("What do you think about summer?", "How can I learn to cook?", "Tell me about trees."),
    *("What should I read?", "Why do people dance?", "Tell me about the city of Paris."),
    *("I lost my keys.",),
)
"""Prompts that nothing is chosen on."""


def read_examples(name: str) -> list[dict[str, str]]:
    """The prompts and answers of a file of examples."""
    lines = (_EXAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_messages(example: dict[str, str]) -> list[ChatMessage]:
    """An example as the two turns of a chat."""
    return [
        {"role": "user", "content": example["prompt"]},
        {"role": "assistant", "content": example["answer"]},
    ]


def intervention(name: str, layers: Sequence[int], strength: float) -> dict[str, Any]:
    """How a style's direction is added: to what decides the first token, and to the answer."""
    return {
        "operation": "add",
        "direction": name,
        "layers": list(layers),
        "strength": strength,
        "scope": {"tokens": ["last_prompt", "generated"]},
    }
