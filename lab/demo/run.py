"""One run: every demo fitted, chosen on validation prompts and measured on test prompts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lab.corpus import STYLE_NAMES, SYSTEM_PROMPTS
from steering.directions import Direction
from steering.model_spec import ModelSpec

from .criterion import Rates
from .demo import Demo, Variant
from .demos import DEMOS
from .effects import EFFECTS, Condition, measure
from .fits import Fits
from .laboratory import Laboratory
from .monitoring import Monitoring, read_monitor
from .search import Search, search

FACTORS: Final = (0.5, 1.0, 1.25, 1.5)
"""Strengths of a request at which each profile is measured."""

UNSTEERED: Final = "unsteered"

_NUM_PROMPTS: Final = 80
_NUM_AT_FACTOR: Final = 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Run:
    """Everything a run found.

    Attributes:
        spec: The model.
        searches: What was tried for each profile.
        effects: Rates on test prompts by condition: unsteered, profiles, system prompts.
        strengths: Rates of what each profile was chosen by at each of `FACTORS`, on validation.
        monitoring: What the monitor reads.
    """

    spec: ModelSpec
    searches: Mapping[str, Search]
    effects: Mapping[str, Rates]
    strengths: Mapping[str, Sequence[Rates]]
    monitoring: Monitoring

    def max_strength(self, profile: str) -> float:
        """The largest of `FACTORS`, 1 or more, up to which a profile keeps what it was chosen by.

        Nothing is compared with the unsteered model here but with the profile at strength 1.
        """
        criterion, rates = self.searches[profile].criterion, self.strengths[profile]
        own = rates[FACTORS.index(1.0)]
        largest = 1.0
        for factor, steered in zip(FACTORS, rates, strict=True):
            if factor > 1.0 and criterion.harm(own, steered):
                break
            largest = max(largest, factor)
        return largest

    def directions(self) -> dict[str, Direction]:
        """What the profiles use, by profile."""
        return {name: search.best.steer.direction for name, search in self.searches.items()}


def run(laboratory: Laboratory) -> Run:
    """Fit, choose and measure; takes minutes on one core."""
    fits = Fits(laboratory)
    searches = {demo.profile: _choose(laboratory, fits, demo) for demo in DEMOS}
    best = {profile: found.best for profile, found in searches.items()}
    effects = _effects(laboratory, best)
    strengths = {profile: _at_factors(laboratory, found) for profile, found in searches.items()}
    refusal = best["unlocked"].steer.direction
    monitoring = read_monitor(laboratory, refusal, _NUM_PROMPTS)
    return Run(laboratory.spec, searches, effects, strengths, monitoring)


def _choose(laboratory: Laboratory, fits: Fits, demo: Demo) -> Search:
    found = search(laboratory, demo.criterion, demo.variants(fits))
    _log.info("%s: %s", demo.profile, found.best.label(laboratory.spec))
    return found


def _effects(laboratory: Laboratory, best: Mapping[str, Variant]) -> dict[str, Rates]:
    plans = {name: variant.plan(laboratory.spec) for name, variant in best.items()}
    profiles = [Condition(name, plan=plan) for name, plan in plans.items()]
    policies, tones = (
        [Condition(f"{name} system prompt", system=SYSTEM_PROMPTS[name]) for name in names]
        for names in (("careful", "staff"), STYLE_NAMES)
    )
    of_tones = [effect for effect in EFFECTS if effect.kind == "ordinary"]
    conditions = [Condition(UNSTEERED), *profiles, *policies]
    return {
        **measure(laboratory, conditions, EFFECTS, count=_NUM_PROMPTS),
        **measure(laboratory, tones, of_tones, count=_NUM_PROMPTS),
    }


def _at_factors(laboratory: Laboratory, found: Search) -> list[Rates]:
    plans = {factor: found.best.plan(laboratory.spec, factor) for factor in FACTORS}
    conditions = [Condition(str(factor), plan=plan) for factor, plan in plans.items()]
    measured = found.criterion.measured
    rates = measure(laboratory, conditions, measured, split="validation", count=_NUM_AT_FACTOR)
    return list(rates.values())
