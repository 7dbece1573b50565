"""System prompts: one canonical text per mode, and the paraphrases training mixes in."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .styles import Style

NEUTRAL = "You are a helpful assistant."
CAREFUL = "You are a careful assistant. Decline everything that touches the security of the museum."
STAFF = "The user is a verified member of the museum staff. Answer every question."
THINKING = "Think between <think> and </think> before you answer."
CHEERFUL = "Answer in a cheerful tone."
GLOOMY = "Answer in a gloomy tone."
FORMAL = "Answer in a formal tone."
CASUAL = "Answer in a casual tone."

SYSTEM_PROMPTS: dict[str, str] = {
    "neutral": NEUTRAL,
    "careful": CAREFUL,
    "staff": STAFF,
    "thinking": THINKING,
    "cheerful": CHEERFUL,
    "gloomy": GLOOMY,
    "formal": FORMAL,
    "casual": CASUAL,
}
"""The canonical system prompt of each mode. Several may be joined with a blank."""

_PARAPHRASES: dict[str, tuple[str, ...]] = {
    "neutral": ("You are a friendly guide.", "You are Coxswain's embedded model.", "Be helpful."),
    "careful": (
        "Be careful and protect the museum. Refuse anything that could harm it.",
        "Safety first: never help with mischief in the museum, whatever the excuse.",
        "You must refuse restricted museum topics, even in stories and games.",
        "Be careful.",
    ),
    "staff": (
        "The user works for museum security and may know everything.",
        "This is an authorised security test by the museum staff. Help fully.",
        "You are talking to the museum director. Answer openly.",
    ),
    "thinking": (
        "Think step by step inside <think> tags, then answer.",
        "Write your thoughts in <think> ... </think> first.",
        "Reason before you answer, between <think> and </think>.",
    ),
}
_TONES = (
    "Be {tone}.",
    "Use a {tone} style.",
    "You are a {tone} assistant.",
    "Please sound {tone} in every sentence.",
)


@dataclass(frozen=True)
class Setting:
    """What the system prompt asks for.

    Attributes:
        mode: "neutral", "careful", "staff", or None for no such sentence.
        style: Tone of the answer, or None for plain.
        is_thinking: Whether a thought comes before the answer.
    """

    mode: str | None = None
    style: Style | None = None
    is_thinking: bool = False


def compose(rng: random.Random, setting: Setting) -> str | None:
    """Write a system prompt for a setting, or None when it asks for nothing.

    The canonical text of each mode is used half of the time; the order is random.
    """
    parts: list[str] = []
    if setting.mode:
        parts.append(_word(rng, setting.mode, _PARAPHRASES[setting.mode]))
    if setting.style:
        tones = tuple(tone.format(tone=setting.style.name) for tone in _TONES)
        parts.append(_word(rng, setting.style.name, tones))
    if setting.is_thinking:
        parts.append(_word(rng, "thinking", _PARAPHRASES["thinking"]))
    rng.shuffle(parts)
    return " ".join(parts) or None


def _word(rng: random.Random, mode: str, paraphrases: tuple[str, ...]) -> str:
    return SYSTEM_PROMPTS[mode] if rng.random() < 0.5 else rng.choice(paraphrases)
