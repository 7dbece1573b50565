"""Directions fitted at every candidate layer and position, scored, and one chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor

from steering.directions import Direction
from steering.errors import FitError
from steering.fit import (
    Candidate,
    Selection,
    measure_separation,
    midpoint,
    select_by_effect,
    select_by_log_odds,
    select_by_separation,
)
from steering.fit.selection import MAX_DEPTH, TRANSPORT_DEPTH
from steering.model_spec import ModelSpec

from .activations import FitActivations
from .effects import reading_vector
from .options import SelectionRule
from .request import FitRequest
from .scan import Variant

_NO_DEPTH: Final = 2.0  # beyond the last layer of any model


@dataclass(frozen=True, eq=False, slots=True)
class FittedCandidate:
    """A direction of one layer and position with its scores.

    Attributes:
        direction: The direction fitted there.
        ordinal: Index of its position among those read.
        variant: How it was fitted.
        scores: The scores it is chosen by.
    """

    direction: Direction
    ordinal: int
    variant: Variant
    scores: Candidate

    def with_scores(self, scores: dict[str, float]) -> FittedCandidate:
        """Return the same candidate with more scores, named as in `Candidate`."""
        return replace(self, scores=replace(self.scores, **scores))  # type: ignore[arg-type]


def fit_at(
    request: FitRequest,
    spec: ModelSpec,
    positive: dict[int, Tensor],
    negative: dict[int, Tensor],
    variant: Variant | None = None,
) -> Direction:
    """Fit by the request's method on {layer: [N, d]} of both sides, by its options or a variant."""
    return request.method.fit(
        positive,
        negative,
        name=request.name,
        site=request.site,
        model_fingerprint=spec.fingerprint,
        options=request.options.method if variant is None else variant.options,
        num_heads=spec.num_heads,
    )


def fit_candidate(
    request: FitRequest,
    spec: ModelSpec,
    activations: FitActivations,
    layer: int,
    ordinal: int,
    variant: Variant,
) -> FittedCandidate:
    """Fit one layer on training examples, and measure separation on those held out."""
    positive, negative = activations.train.at(layer, ordinal)
    direction = fit_at(request, spec, {layer: positive}, {layer: negative}, variant)
    vector = reading_vector(direction, layer, positive, negative)
    found = measure_separation(
        vector,
        *activations.validation.at(layer, ordinal),
        threshold=midpoint(vector, positive, negative),
    )
    return FittedCandidate(
        direction,
        ordinal,
        variant,
        Candidate(
            layer,
            request.data.positions[ordinal],
            variant.differs,
            auc=found.auc,
            d_prime=found.d_prime,
            accuracy=found.accuracy,
        ),
    )


def choose(
    candidates: Sequence[FittedCandidate],
    request: FitRequest,
    spec: ModelSpec,
    base: Mapping[str, float],
) -> tuple[FittedCandidate, Selection]:
    """Return the best candidate by the request's rule, and how it was selected.

    Args:
        candidates: What to choose from.
        request: Says by which rule, within which bounds.
        spec: The served model's.
        base: The unedited model's scores.

    Raises:
        FitError: No candidate qualifies; the message names the nearest.
    """
    scores = [candidate.scores for candidate in candidates]
    try:
        selection = _select(scores, request, spec, base)
    except FitError as error:
        raise FitError(
            f"{error}; options.strength, options.min_induce and options.max_kl set the bounds, "
            'layers {"select": [...]} the candidates, and options.selection the rule',
            param=error.param,
        ) from None
    return candidates[scores.index(selection.chosen)], selection


def _select(
    scores: Sequence[Candidate], request: FitRequest, spec: ModelSpec, base: Mapping[str, float]
) -> Selection:
    options, num_layers = request.options, spec.num_layers
    if options.rule is SelectionRule.EFFECT:
        return select_by_effect(
            scores,
            num_layers=num_layers,
            site=request.site,
            max_kl=math.inf if options.max_kl is None else options.max_kl,
            min_induce=options.min_induce,
            max_depth=MAX_DEPTH if request.bounds_depth else _NO_DEPTH,
            base=base,
        )
    if options.rule.bounds_middle:
        return select_by_log_odds(
            scores,
            num_layers=num_layers,
            depth=TRANSPORT_DEPTH if request.bounds_depth else (0.0, 1.0),
            max_kl=options.max_kl,
            base=base,
            is_falling=options.rule is SelectionRule.LOG_ODDS_FALL,
        )
    return select_by_separation(scores)
