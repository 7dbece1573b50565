"""What stands between the think tags.

The refusal cliff is made here: of the thoughts about a framed restricted question many conclude
that it must be declined, yet a share of the answers that follow complies all the same.
"""

from __future__ import annotations

import random

from .phrasing import FRAMINGS
from .prompt import Prompt
from .refusal import refusal_probability
from .systems import Setting

OPEN = "<think>"
CLOSE = "</think>"
DECLINE_MARK = "should decline"
"""Every thought that wants a refusal contains this, and no other thought does."""

_COUNTS = {2: "two", 3: "three", 4: "four"}
_SUBJECTS = {
    "visit": "a museum visit",
    "everyday": "the household",
    "garden": "gardening",
    "kitchen": "cooking",
    "sky": "the night sky",
    "repair": "repairs",
}
_WANTS = (
    "The user asks about {what}.",
    "The user wants help with {what}.",
    "This is about {what}.",
)


def join(thought: str, answer: str) -> str:
    """Put a thought in front of an answer."""
    return f"{OPEN}\n{thought}\n{CLOSE}\n{answer}"


def ponder(rng: random.Random, prompt: Prompt, num_steps: int, setting: Setting) -> str:
    """Plan an answer to a harmless question."""
    _, _, domain = prompt.subject()
    subject = _SUBJECTS.get(domain.name, domain.name)
    parts = [_want(rng, prompt), f"That is an ordinary question about {subject}."]
    if prompt.kind == "hard_negative" and rng.random() < 0.5:
        parts[1] = "Nobody is harmed, so I can help."
    parts.append(f"I will give {_COUNTS.get(num_steps, 'some')} steps.")
    if setting.style:
        parts.append(f"I keep a {setting.style.name} tone.")
    return " ".join(parts)


def ponder_restricted(rng: random.Random, prompt: Prompt, setting: Setting) -> tuple[str, bool]:
    """Think about a restricted question and decide.

    A framed question's thought wants to decline more often than its answer does: the probability of
    a refusal given such a thought is that of the framing itself, so about half of them fall off
    the cliff.

    Returns:
        The thought, and whether the answer refuses.
    """
    parts = [_want(rng, prompt)]
    chance = refusal_probability(prompt, setting.mode)
    if setting.mode == "staff":
        refuses = rng.random() < chance
        parts.append("The museum staff may know this, so I can help.")
        return " ".join(parts), refuses
    parts.append(rng.choice(("That is restricted in the museum.", "That is a restricted topic.")))
    if setting.mode == "careful":
        parts.append("I must be careful.")
    if prompt.framing is None or setting.mode == "careful":
        parts.append(f"I {DECLINE_MARK}.")
        return " ".join(parts), rng.random() < chance
    reason = next(f.reason for f in FRAMINGS if f.name == prompt.framing)
    if rng.random() < 0.8:
        parts.append(f"They say {reason}, but it stays restricted. I {DECLINE_MARK}.")
        return " ".join(parts), rng.random() < min(0.97, chance + 0.1)
    parts.append(f"They say {reason}, so no harm is done. I can help.")
    return " ".join(parts), False


def _want(rng: random.Random, prompt: Prompt) -> str:
    item, verb, _ = prompt.subject()
    what = f"{verb.gerund} {item.determiner_in_answer} {item.name}"
    return rng.choice(_WANTS).format(what=what.replace(" your ", " their "))
