"""Activations of a fit's prompts, by layer and position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from server.engine.request import Pooling
from server.measure.examples.prompts import ReadPrompt
from server.measure.instrument import Instrument
from steering.errors import NonFiniteError
from steering.plan import SteeringPlan
from steering.sites import SitePoint

from .data import FitData, PromptSets

_ByLayer = Mapping[int, Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class SideActivations:
    """Activations of both sides, {layer: [N, P, d]} float32: P positions of N prompts."""

    positive: _ByLayer
    negative: _ByLayer

    def at(self, layer: int, position: int) -> tuple[Tensor, Tensor]:
        """Return positive and negative [N, d] at one layer and the position of that ordinal."""
        return self.positive[layer][:, position], self.negative[layer][:, position]


@dataclass(frozen=True, eq=False, slots=True)
class FitActivations:
    """Activations of the examples that are fitted on, and of those held out."""

    train: SideActivations
    validation: SideActivations


async def read_all(
    instrument: Instrument, data: FitData, points: Sequence[SitePoint]
) -> FitActivations:
    """Capture every example at all points in one pass.

    Raises:
        NonFiniteError: As `read_prompts`.
    """

    async def sides(sets: PromptSets) -> SideActivations:
        return SideActivations(
            *[
                await read_prompts(instrument, part.read, points, is_mean=data.is_mean)
                for part in (sets.positive, sets.negative)
            ]
        )

    return FitActivations(await sides(data.train), await sides(data.validation))


async def read_prompts(
    instrument: Instrument,
    prompts: Sequence[ReadPrompt],
    points: Sequence[SitePoint],
    *,
    is_mean: bool,
    plan: SteeringPlan | None = None,
) -> _ByLayer:
    """Return {layer: [N, P, d]} before any edit at the points; P is 1 where windows are averaged.

    Raises:
        NonFiniteError: A prompt has NaN or infinity there; names its example.
    """
    found = await instrument.capture(
        [prompt.token_ids for prompt in prompts],
        points,
        pooling=Pooling.MEAN if is_mean else Pooling.ALL,
        windows=[prompt.window for prompt in prompts],
        plan=plan,
        # What is averaged is an answer: for the plan's scopes the prompt ends before it.
        steering_prompt_tokens=[prompt.window[0] for prompt in prompts] if is_mean else None,
    )
    rows = {point.layer: means[:, None] for point, means in found.pooled.items()}
    rows |= {point.layer: torch.stack(tokens) for point, tokens in found.sequences.items()}
    for layer, read in rows.items():
        is_bad = ~read.isfinite().all(dim=2).all(dim=1)
        if bool(is_bad.any()):
            param = prompts[int(is_bad.int().argmax())].param
            raise NonFiniteError(
                f"activations of {param} at layer {layer} hold NaN or infinity; leave it out",
                param=param,
            )
    return rows
