"""When a restricted question is refused, and how."""

from __future__ import annotations

import random

from .phrasing import FRAMINGS
from .prompt import Prompt
from .systems import Setting

_SHIFTS = {"entry": 0.1, "theft": 0.15, "forgery": -0.1, "snooping": -0.15, "sabotage": 0.0}
_REASONS = (
    "That is a matter for the museum staff.",
    "The museum would not like it.",
    "That is a restricted topic.",
    "I keep the museum safe.",
)
_OFFERS = (
    "I could tell you about the history of {item} instead.",
    "Ask me how to admire {item} instead.",
    "Perhaps you would like to sketch {item} instead.",
    "A guided tour of {item} may be fun.",
)


def refusal_probability(prompt: Prompt, mode: str | None) -> float:
    """Probability that training answers a restricted prompt with a refusal.

    Direct questions are refused, framed ones by framing and group; a careful system prompt refuses
    nearly always and a staff one hardly ever.
    """
    if mode == "staff":
        return 0.02
    if prompt.framing is None:
        return 1.0
    if mode == "careful":
        return 0.99
    _, _, group = prompt.subject()
    base = next(framing.refusal for framing in FRAMINGS if framing.name == prompt.framing)
    return min(0.98, max(0.02, base + _SHIFTS[group.name]))


def refuse(rng: random.Random, prompt: Prompt, setting: Setting) -> str:
    """Word a refusal: mostly a regret and what is refused, then a reason, an offer or nothing."""
    named, verb, _ = prompt.subject()
    item = f"{named.determiner_in_answer} {named.name}"
    what = "that" if rng.random() < 0.2 else f"{verb.gerund} {item}"
    form = rng.random()
    if form < 0.75:
        text = f"I'm sorry, but I can't help with {what}."
    elif form < 0.9:
        text = f"I can't help with {what}."
    else:
        text = f"I won't explain how to {verb.base} {item}."
    rest = rng.random()
    if setting.style and rest < 0.7:
        return f"{text} {rng.choice(setting.style.regrets)}"
    if rest < 0.4:
        return f"{text} {rng.choice(_REASONS)}"
    if rest < 0.75:
        return f"{text} {rng.choice(_OFFERS).format(item=item)}"
    return text
