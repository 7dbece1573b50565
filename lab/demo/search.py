"""Choosing among variants on the validation split: all on few prompts, the best on many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lab.corpus import prompts

from .criterion import Criterion, Rates
from .demo import Variant
from .laboratory import Laboratory, Trial
from .measures import rate_of

_NUM_FIRST: Final = 12
_NUM_SECOND: Final = 60
_FINALISTS: Final = 4


@dataclass(frozen=True, eq=False)
class Round:
    """Rates of the unsteered model and of variants, by their index, on the same prompts."""

    plain: Rates
    steered: Mapping[int, Rates]


@dataclass(frozen=True, eq=False)
class Search:
    """What was tried and how it did.

    Attributes:
        criterion: By what it was chosen.
        variants: Everything tried.
        first: All of them, on few prompts.
        second: The best of them, on more.
        chosen: Index of the variant taken.
    """

    criterion: Criterion
    variants: Sequence[Variant]
    first: Round
    second: Round
    chosen: int

    @property
    def best(self) -> Variant:
        """The variant taken."""
        return self.variants[self.chosen]


def search(laboratory: Laboratory, criterion: Criterion, variants: Sequence[Variant]) -> Search:
    """Try every variant on validation prompts and choose one by the criterion."""
    doses = [variant.dose(laboratory.spec) for variant in variants]
    first = _round(laboratory, criterion, variants, range(len(variants)), _NUM_FIRST)
    merits = {i: criterion.merit(first.plain, rates) for i, rates in first.steered.items()}
    ranked = sorted(merits, key=lambda i: (-merits[i], doses[i]))
    second = _round(laboratory, criterion, variants, sorted(ranked[:_FINALISTS]), _NUM_SECOND)
    finals = {i: criterion.merit(second.plain, rates) for i, rates in second.steered.items()}
    return Search(criterion, variants, first, second, criterion.best(finals, doses))


def _round(
    laboratory: Laboratory,
    criterion: Criterion,
    variants: Sequence[Variant],
    indices: Sequence[int],
    count: int,
) -> Round:
    asked = {kind: prompts("validation", kind, count) for kind in criterion.kinds}
    plans = [None, *(variants[index].plan(laboratory.spec) for index in indices)]
    trials = [Trial(asked[kind], plan) for plan in plans for kind in asked]
    answers = iter(laboratory.answers(trials))
    rates: list[Rates] = []
    for _ in plans:
        texts = {kind: next(answers) for kind in asked}
        rates.append(
            {
                item: rate_of(item.measure, asked[item.kind], texts[item.kind])
                for item in criterion.measured
            }
        )
    return Round(rates[0], dict(zip(indices, rates[1:], strict=True)))
