"""What a fitted direction does to the served model: measured on validation prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

from server.measure.baseline import Baseline
from server.measure.instrument import Instrument
from server.measure.next_token import distinguishing_tokens
from steering.directions import Direction
from steering.errors import FitError
from steering.fit import Damage
from steering.model_spec import ModelSpec
from steering.plan import SteeringPlan

from .data import FitData
from .edits import apply_plan, bypass_plan
from .options import SelectionRule
from .request import FitRequest

__all__ = ["FitEffects", "derive_behaviour_tokens"]

_Prompts = tuple[tuple[int, ...], ...]

# Their directions act on positive activations and are meant to leave negative ones alone.
_MOVES_POSITIVE: Final = frozenset({"leace", "null_space", "pca"})


async def derive_behaviour_tokens(instrument: Instrument, data: FitData) -> tuple[int, ...]:
    """Tokens that begin answers to positive training prompts and not to negative ones.

    Raises:
        FitError: There are none: the first token of an answer does not tell the behaviour.
    """
    found = distinguishing_tokens(
        *[
            await instrument.next_token(part.served)
            for part in (data.train.positive, data.train.negative)
        ]
    )
    if not found:
        raise FitError(
            "answers to positive and to negative prompts begin alike, so the behaviour cannot be "
            "read off the first token; give options.behaviour_tokens, or options.selection "
            "'separation'",
            param="options.behaviour_tokens",
        )
    return found


@dataclass(frozen=True, eq=False)
class FitEffects:
    """Measures edits on prompts as they are served, without the transient system prompt.

    Attributes:
        instrument: On the engine.
        request: What directions are meant for, and whose validation prompts are used.
        spec: Of the model.
        behaviour_tokens: Begin an answer of the positive behaviour; empty where only damage is
            measured.
    """

    instrument: Instrument
    request: FitRequest
    spec: ModelSpec
    behaviour_tokens: tuple[int, ...]
    _plain: dict[_Prompts, Tensor] = field(default_factory=dict)

    async def scores(self, direction: Direction, rule: SelectionRule) -> dict[str, float]:
        """The scores of `steering.fit.Candidate` that `rule` compares."""
        validation = self.request.data.validation
        positive, negative = validation.positive.served, validation.negative.served
        edit = self.plan(direction)
        match rule:
            case SelectionRule.EFFECT:
                ablation = bypass_plan(direction, self.spec)
                return {
                    "bypass": await self._log_odds(positive, ablation),
                    "induce": await self._log_odds(negative, edit),
                    "kl": await self._kl(negative, ablation),
                }
            case SelectionRule.LOG_ODDS:
                return {
                    "log_odds": await self._log_odds(negative, edit),
                    "kl": await self._kl(positive, edit),
                }
        return {}

    def plan(self, direction: Direction) -> SteeringPlan | None:
        """The method's operation at the request's strength and scope; None if only read."""
        options = self.request.options
        return apply_plan(
            direction,
            self.request.method,
            self.spec,
            strength=options.strength,
            scope=options.scope,
        )

    async def damage(self, direction: Direction) -> Damage | None:
        """What changes where nothing should; None for a direction that is only read.

        KL of the first answer token, and perplexity of the unedited model's own answers.
        """
        plan, operation = self.plan(direction), self.request.method.operation
        if plan is None or operation is None:
            return None
        baseline = await Baseline.of(self.instrument, self.spared[1])
        return Damage(
            kl=await baseline.kl(plan),
            perplexity=await baseline.perplexity_under(plan),
            base_perplexity=baseline.perplexity,
            operation=operation.value,
            strength=self.request.options.strength,
        )

    @property
    def moves_positive(self) -> bool:
        """Whether positive activations are those the method moves; else negative ones are."""
        return self.request.method.name in _MOVES_POSITIVE

    @property
    def spared(self) -> tuple[str, _Prompts]:
        """Prompts that should not change, and what they are."""
        data = self.request.data
        if data.neutral:
            return "neutral", data.neutral
        if self.moves_positive:
            return "negative validation", data.validation.negative.served
        return "positive validation", data.validation.positive.served

    async def _log_odds(self, prompts: _Prompts, plan: SteeringPlan | None) -> float:
        return _mean(await self.instrument.log_odds(prompts, self.behaviour_tokens, plan))

    async def _kl(self, prompts: _Prompts, plan: SteeringPlan | None) -> float:
        if prompts not in self._plain:  # the same for every candidate
            self._plain[prompts] = await self.instrument.next_token(prompts)
        return _mean(await self.instrument.kl(prompts, plan, plain=self._plain[prompts]))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
