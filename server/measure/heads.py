"""Attention heads ranked against a probe, the first of them checked against random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, field_validator

from server.engine.engine import Engine
from server.engine.text import Tokenizer
from server.store.names import RegistryName
from steering.analysis import Head, HeadScore, head_count, heads_direction, random_heads, rank_heads
from steering.directions import Direction
from steering.documents import Document, Number, Seed, Texts, Within, refused
from steering.errors import InvalidFieldError
from steering.model_spec import ModelSpec
from steering.plan import PlannedMonitor
from steering.sites import Site

from .examples.example import Example, example_list, place_examples
from .examples.variables import TemplateVariables
from .head_scores import (
    Attribution,
    ablation_document,
    attribution,
    causal_scores,
    check_attributable,
    mean_probability,
    num_visible_layers,
    scaled_plan,
)
from .instrument import Instrument, OnProgress, Prompts
from .probe import Probe, YesOrNo, probe_document
from .rollout import read_ending

MAX_PROMPTS: Final = 256
"""Most prompts of one request; more go through a job."""


class HeadMethod(StrEnum):
    """How heads are scored.

    `attribution`: what a head writes along the probe, most negative first. `causal`: the probe's
    probability with one head scaled down, highest first.
    """

    ATTRIBUTION = "attribution"
    CAUSAL = "causal"


def _profile_name(value: Any) -> Any:
    if not isinstance(value, str):
        raise refused("is not a name")
    return value


def _from_0_to(high: float) -> tuple[object, ...]:
    return Field(ge=0, le=high), Within(f"0 to {high:g}")


class HeadsQuery(Document):
    """What is asked about attention heads and a probe."""

    noun: ClassVar[str] = "a heads request"
    subject: ClassVar[str] = "the request"

    prompts: Annotated[tuple[Example, ...], example_list(MAX_PROMPTS)] = Field(
        description="Chats or texts; a chat may end with the assistant's thought.",
        json_schema_extra={"minItems": 1, "maxItems": MAX_PROMPTS},
    )
    chat_template_kwargs: TemplateVariables = Field(
        default_factory=dict, description="Variables of the chat template that they are written by."
    )
    probe: Probe = Field(description="What heads are scored against, and where it is read.")
    method: HeadMethod = Field(default=HeadMethod.ATTRIBUTION, description="How.")
    fold: YesOrNo | None = Field(
        default=None,
        description="Whether attribution ranks by the probe folded through the final norm; by "
        "default where the probe is read after that norm.",
    )
    factor: Annotated[Number, *_from_0_to(1.0)] = Field(
        default=0.001, description="What the causal method scales a head by."
    )
    percent: Annotated[Number, *_from_0_to(100.0)] = Field(
        default=3.0, description="Share of the heads that is selected, in per cent."
    )
    gamma: Annotated[Number, *_from_0_to(1.0)] = Field(
        default=0.0, description="What selected heads are scaled by in the profile."
    )
    seed: Seed = Field(default=0, description="Of the random control.")
    check: YesOrNo = Field(
        default=True,
        description="Whether the probe is read again without the selected and without the random "
        "heads.",
    )
    profile: Annotated[RegistryName, BeforeValidator(_profile_name)] | None = Field(
        default=None,
        description="Name under which the selected heads are saved as a draft profile.",
    )
    requires: Texts = Field(
        default=(), description="Permissions that profile and direction are to require."
    )

    @field_validator("prompts")
    @classmethod
    def _place(cls, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return place_examples(examples, "prompts")

    def endings(self, tokenizer: Tokenizer, max_tokens: int) -> list[tuple[int, ...]]:
        """The prompts in tokens, each up to where its answer would begin.

        Raises:
            InvalidFieldError, EngineError: As `read_ending`.
        """
        variables = self.chat_template_kwargs
        return [read_ending(tokenizer, each, max_tokens, variables) for each in self.prompts]


@dataclass(frozen=True, eq=False, slots=True)
class HeadsReport:
    """What was asked and what was found.

    Attributes:
        query: The request.
        probe: The probe where it was read.
        is_folded: Whether the ranking folds the probe through the final norm.
        ranking: All heads the probe can see, the strongest suppressor first.
        attribution: Direct and folded shares; None where the method was causal.
        selected: The first heads of the ranking: `percent` of all heads of the model.
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
        """Return the report as JSON; heads are [layer, head]."""
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
        """Return the selected heads as a direction for the operation `scale_heads`."""
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
        """Return a profile that scales the selected heads by the stored `direction`."""
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
    """Check a request against model and probe; return whether the ranking folds the probe.

    Folding takes the probe's weight through the final norm.

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
    progress: OnProgress | None = None,
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
