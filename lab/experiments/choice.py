"""Choosing one recipe of a method on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.demo.criterion import Criterion, Rates

from .estimate import Estimate
from .observation import Recipe, survey
from .subject import Subject


@dataclass(frozen=True, eq=False)
class Choice:
    """The recipe taken, and what it did on validation prompts.

    Attributes:
        recipe: The one that was chosen.
        rates: Its rates.
        num_tried: How many it was chosen from.
    """

    recipe: Recipe
    rates: Rates
    num_tried: int

    def to_dict(self) -> dict[str, Any]:
        """Settings and validation rates as JSON."""
        return {
            "settings": dict(self.recipe.settings),
            "num_tried": self.num_tried,
            "validation": {
                str(what): Estimate.share(rate.hits, rate.n).to_dict()
                for what, rate in self.rates.items()
            },
        }


def best_of(
    criterion: Criterion, plain: Rates, recipes: Sequence[Recipe], rates: Sequence[Rates]
) -> Choice:
    """Choose among recipes already measured on validation prompts."""
    merits = {i: criterion.merit(plain, found) for i, found in enumerate(rates)}
    chosen = criterion.best(merits, [recipe.dose for recipe in recipes])
    return Choice(recipes[chosen], rates[chosen], len(recipes))


def choose(
    subject: Subject, criterion: Criterion, plain: Rates, recipes: Sequence[Recipe]
) -> Choice:
    """Measure every recipe on validation prompts and choose one."""
    return best_of(criterion, plain, recipes, survey(subject, recipes, criterion.measured))
