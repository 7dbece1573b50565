"""Recipes, each a way to steer, and what is observed of the model under one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lab.demo.criterion import Rates
from lab.demo.effects import Condition, measure
from lab.demo.measures import Measured, Rate
from steering.model_spec import ModelSpec
from steering.plan import Steer, compile_plan

from .estimate import Estimate
from .subject import Subject

PERPLEXITY: Final = "perplexity of ordinary text"
KL: Final = "KL divergence on ordinary text"
_AT_ONCE: Final = 8  # recipes whose prompts are queued together: more fill batches, and memory
_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Recipe:
    """Interventions that act together.

    Attributes:
        method: Name of the row it stands for.
        steers: Interventions with their directions, in order; none means the plain model.
        settings: What was set: layer, alpha and the like; JSON.
        dose: Larger is stronger, among recipes of one method; the smaller wins a tie.
        system: System prompt under which it is measured.
    """

    method: str
    steers: tuple[Steer, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    dose: float = 0.0
    system: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Name and settings as JSON."""
        return {"method": self.method, "settings": dict(self.settings)}

    def condition(self, spec: ModelSpec) -> Condition:
        """The compiled recipe, as `lab.demo.effects` measures it."""
        plan = compile_plan(self.steers, [], spec) if self.steers else None
        return Condition(str(self), plan, self.system)

    def __str__(self) -> str:
        return ", ".join([self.method, *(f"{k} {v}" for k, v in self.settings.items())])


@dataclass(frozen=True, eq=False)
class Observation:
    """Raw counts and per-text sums, so that draws can be pooled.

    Attributes:
        rates: Of answers to test prompts.
        nats: [N] negative log-probability of each reference answer, summed over its tokens.
        tokens: [N] tokens of each reference answer.
        divergences: [N] KL(plain || steered) in nats, mean over the positions that predict each
            reference answer.
    """

    rates: Rates
    nats: _Floats
    tokens: _Floats
    divergences: _Floats

    def estimates(self) -> dict[str, Estimate]:
        """By the name of what was measured."""
        return {
            **{str(what): Estimate.share(rate.hits, rate.n) for what, rate in self.rates.items()},
            PERPLEXITY: Estimate.perplexity(self.nats, self.tokens),
            KL: Estimate.mean(self.divergences),
        }

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Every estimate as JSON, by name."""
        return {name: found.to_dict() for name, found in self.estimates().items()}


def observe(
    subject: Subject, recipes: Sequence[Recipe], measured: Sequence[Measured]
) -> Observation:
    """Measure on the test split; several recipes are draws of one method and are pooled."""
    found = [_observe(subject, recipe, measured) for recipe in recipes]
    return Observation(
        {
            what: Rate(sum(o.rates[what].hits for o in found), sum(o.rates[what].n for o in found))
            for what in measured
        },
        *(
            np.concatenate([getattr(o, name) for o in found])
            for name in ("nats", "tokens", "divergences")
        ),
    )


def survey(
    subject: Subject, recipes: Sequence[Recipe], measured: Sequence[Measured]
) -> list[Rates]:
    """Rates of each recipe on the validation split."""
    conditions = [
        replace(recipe.condition(subject.spec), name=str(index))
        for index, recipe in enumerate(recipes)
    ]
    found: dict[str, Rates] = {}
    for start in range(0, len(conditions), _AT_ONCE):
        found |= measure(
            subject.laboratory,
            conditions[start : start + _AT_ONCE],
            measured,
            split="validation",
            count=subject.sizes.validation,
        )
    return [found[condition.name] for condition in conditions]


def _observe(subject: Subject, recipe: Recipe, measured: Sequence[Measured]) -> Observation:
    condition = recipe.condition(subject.spec)
    rates = measure(subject.laboratory, [condition], measured, count=subject.sizes.test)
    nats, tokens, divergences = _read_texts(subject, condition)
    return Observation(rates[condition.name], nats, tokens, divergences)


def _read_texts(subject: Subject, condition: Condition) -> tuple[_Floats, _Floats, _Floats]:
    scored = subject.laboratory.scores(
        *subject.texts, system=condition.system, plan=condition.plan, full=True
    )
    logprobs = scored.token_logprobs
    divergences = [
        float((plain.exp() * (plain - steered)).sum(dim=-1).double().mean())
        for plain, steered in zip(subject.plain_distributions, scored.distributions, strict=True)
    ]
    return (
        np.array([-sum(values) for values in logprobs]),
        np.array([len(values) for values in logprobs], dtype=np.float64),
        np.array(divergences),
    )
