"""The seeded corpus grammar: benign dialogues to train on, and prompts to measure with.

Pure standard library. `dialogues` is what the checkpoint was trained on; `prompts` gives user
messages of one kind from one split, whose verb-noun combinations (and part of the phrasings, all
wordings of small talk, and all multiple-choice questions) no other split contains.

    >>> from lab.corpus import CAREFUL, prompts
    >>> prompt = prompts("validation", "restricted_framed")[0]
    >>> messages = prompt.messages(system=CAREFUL)
"""

from __future__ import annotations

from .dialogue import Dialogue, Turn, dialogues
from .prompt import KINDS, SPLITS, Item, Kind, Prompt, Split
from .question import prompts
from .styles import STYLE_NAMES, Style, style_named
from .systems import (
    CAREFUL,
    CASUAL,
    CHEERFUL,
    FORMAL,
    GLOOMY,
    NEUTRAL,
    STAFF,
    SYSTEM_PROMPTS,
    THINKING,
)

__all__ = [
    "CAREFUL",
    "CASUAL",
    "CHEERFUL",
    "FORMAL",
    "GLOOMY",
    "KINDS",
    "NEUTRAL",
    "SPLITS",
    "STAFF",
    "STYLE_NAMES",
    "SYSTEM_PROMPTS",
    "THINKING",
    "Dialogue",
    "Item",
    "Kind",
    "Prompt",
    "Split",
    "Style",
    "Turn",
    "dialogues",
    "prompts",
    "style_named",
]
