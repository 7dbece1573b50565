"""Heads ranked against a probe, the first of them checked against random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.engine.engine import Engine
from steering.analysis import Head, HeadScore, head_count, heads_direction, random_heads, rank_heads
from steering.directions import Direction
from steering.errors import InvalidFieldError
from steering.model_spec import ModelSpec
from steering.plan import PlannedMonitor
from steering.sites import Site

from .heads_plan import ablation_document, num_visible_layers, scaled_plan
from .heads_query import HeadMethod, HeadsQuery
from .heads_scores import (
    Attribution,
    Progress,
    Prompts,
    attribution,
    causal_scores,
    check_attributable,
    mean_probability,
)
from .instrument import Instrument
from .probe_point import probe_document

__all__ = ["HeadsReport", "check_heads", "rank_on_engine"]


@dataclass(frozen=True, eq=False, slots=True)
class HeadsReport:
    """What was asked and what was found.

    Attributes:
        query: What was asked.
        probe: Where the probe was read.
        is_folded: Whether the ranking folds the probe through the final norm.
        ranking: All heads the probe can see, the strongest suppressor first.
        attribution: Both tables, where that was the method.
        selected: The first `percent` of the ranking, of all heads of the model.
        control: As many drawn by the seed from the others; empty where too few are left.
        probabilities: Mean probability of the probe: `base`, without the `selected`, and without
            the `random` heads; empty where not checked.
    """

    query: HeadsQuery
    probe: PlannedMonitor
    is_folded: bool
    ranking: tuple[HeadScore, ...]
    attribution: Attribution | None
    selected: tuple[Head, ...]
    control: tuple[Head, ...]
    probabilities: dict[str, float]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "probe": probe_document(self.probe),
            "method": self.query.method.value,
            "is_folded": self.is_folded,
            "heads": [self._row(found) for found in self.ranking],
            "selected": [list(head) for head in self.selected],
            "random": [list(head) for head in self.control],
            "probability": self.probabilities or None,
        }

    def direction(self, spec: ModelSpec) -> Direction:
        """The selected heads as a direction for `scale_heads`."""
        query = self.query
        return heads_direction(
            self.selected,
            name=query.profile or "heads",
            num_heads=spec.num_heads,
            gamma=query.gamma,
            model_fingerprint=spec.fingerprint,
            requires=query.requires,
            provenance={
                "method": f"heads_{query.method.value}",
                "probe": self.probe.label,
                "percent": query.percent,
                "heads": [list(head) for head in self.selected],
                "num_prompts": len(query.prompts),
                "probability": dict(self.probabilities),
            },
        )

    def draft(self, direction: str) -> dict[str, Any]:
        """A profile that scales the selected heads, stored as `direction`."""
        return {
            "description": f"{len(self.selected)} attention heads scaled by {self.query.gamma:g}",
            "interventions": [ablation_document(direction)],
            "requires": list(self.query.requires),
        }

    def _row(self, found: HeadScore) -> dict[str, Any]:
        layer, head = found.head
        row: dict[str, Any] = {"layer": layer, "head": head, "score": found.score}
        if self.attribution is not None:
            folded = self.attribution.folded
            row["direct"] = float(self.attribution.direct[layer, head])
            row["folded"] = None if folded is None else float(folded[layer, head])
        return row


def check_heads(engine: Engine, query: HeadsQuery, probe: PlannedMonitor) -> bool:
    """Whether the ranking folds the probe through the final norm, after all was checked.

    Raises:
        InvalidFieldError, SiteUnavailableError: The method does not fit the probe or the model.
    """
    layers, spec = num_visible_layers(probe), engine.info().spec
    count = head_count(spec.num_layers * spec.num_heads, query.percent)
    if count > layers * spec.num_heads:
        raise InvalidFieldError(
            f"percent takes {count} heads, and the probe sees {layers * spec.num_heads}; choose a "
            "smaller percentage",
            param="percent",
        )
    is_final = probe.point.site is Site.FINAL
    if query.method is HeadMethod.ATTRIBUTION:
        check_attributable(engine, probe)
    if query.fold and not (is_final and query.method is HeadMethod.ATTRIBUTION):
        raise InvalidFieldError(
            "fold is true; expected method 'attribution' and a probe read at 'final', after the "
            "norm that is folded",
            param="fold",
        )
    return is_final if query.fold is None else query.fold


async def rank_on_engine(
    engine: Engine,
    instrument: Instrument,
    query: HeadsQuery,
    prompts: Prompts,
    probe: PlannedMonitor,
    progress: Progress | None = None,
) -> HeadsReport:
    """Score all heads, select, draw the control and read the probe again.

    Raises:
        InvalidFieldError, SiteUnavailableError: As `check_heads`.
        EngineError: As `Engine.generate` and `Engine.capture`.
    """
    is_folded, spec = check_heads(engine, query, probe), engine.info().spec
    found: Attribution | None = None
    scores: NDArray[np.float64]
    if query.method is HeadMethod.ATTRIBUTION:
        found = await attribution(engine, instrument, prompts, probe)
        scores = found.folded if is_folded and found.folded is not None else found.direct
    else:
        scores = await causal_scores(engine, instrument, prompts, probe, query.factor, progress)
    ranking = rank_heads(scores, descending=query.method is HeadMethod.CAUSAL)
    count = head_count(spec.num_layers * spec.num_heads, query.percent)
    selected = tuple(item.head for item in ranking[:count])
    has_control = 2 * count <= len(ranking)
    control = (
        random_heads(len(scores), spec.num_heads, count, seed=query.seed, exclude=selected)
        if has_control
        else ()
    )
    sets: dict[str, Sequence[Head]] = {"base": (), "selected": selected, "random": control}
    probabilities = {
        name: await mean_probability(
            instrument, prompts, scaled_plan(heads, query.gamma, probe, spec)
        )
        for name, heads in sets.items()
        if query.check and (heads or name == "base")
    }
    return HeadsReport(query, probe, is_folded, ranking, found, selected, control, probabilities)
