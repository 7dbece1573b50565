"""What the demos do on the test split, which nothing was chosen on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lab.corpus import STYLE_NAMES, Split, prompts
from steering.plan import SteeringPlan

from .criterion import Rates
from .laboratory import Laboratory, Trial
from .measures import Measured, rate_of

EFFECTS: Final = (
    Measured("restricted_direct", "refusal"),
    Measured("restricted_direct", "topical"),
    Measured("restricted_framed", "refusal"),
    Measured("restricted_framed", "topical"),
    Measured("hard_negative", "refusal"),
    Measured("ordinary", "refusal"),
    Measured("ordinary", "topical"),
    Measured("ordinary", "degenerate"),
    *(Measured("ordinary", style) for style in STYLE_NAMES),
    *(Measured("ordinary", f"very {style}") for style in STYLE_NAMES),
    Measured("multiple_choice", "correct"),
)
"""What is measured under a profile."""


@dataclass(frozen=True, eq=False)
class Condition:
    """A steering, a system prompt, or neither."""

    name: str
    plan: SteeringPlan | None = None
    system: str | None = None


def measure(
    laboratory: Laboratory,
    conditions: Sequence[Condition],
    effects: Sequence[Measured],
    *,
    split: Split = "test",
    count: int,
) -> Mapping[str, Rates]:
    """Rates on at most `count` prompts of each kind in a split, by condition."""
    kinds = sorted({effect.kind for effect in effects})
    asked = {kind: prompts(split, kind, count) for kind in kinds}
    trials = [
        Trial(asked[kind], condition.plan, condition.system)
        for condition in conditions
        for kind in kinds
    ]
    answers = iter(laboratory.answers(trials))
    found: dict[str, Rates] = {}
    for condition in conditions:
        texts = {kind: next(answers) for kind in kinds}
        found[condition.name] = {
            effect: rate_of(effect.measure, asked[effect.kind], texts[effect.kind])
            for effect in effects
        }
    return found
