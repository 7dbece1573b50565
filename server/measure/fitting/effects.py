"""A fitted direction as edits, the way its method means it, and what they do to the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor

from server.measure.baseline import Baseline
from server.measure.instrument import Instrument
from server.measure.next_token import distinguishing_tokens
from steering.directions import Direction, DirectionKind
from steering.documents import Ablate, DirectionRef, Intervention, LayerRange, Operation, Scope
from steering.errors import FitError
from steering.fit import Damage, Method
from steering.model_spec import ModelSpec
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import Site, SitePoint

from .data import FitData
from .options import SelectionRule
from .request import FitRequest

_WRITES: Final = (Site.RESID_PRE, Site.ATTN_OUT, Site.MLP_OUT)
_FIELDS: Final[dict[Operation, dict[str, Any]]] = {Operation.ROTATE_TO: {"angle": 0.0}}
_Prompts = tuple[tuple[int, ...], ...]

# Their directions act on positive activations and are meant to leave negative ones alone.
_MOVES_POSITIVE: Final = frozenset({"leace", "null_space", "pca"})


@dataclass(frozen=True, eq=False)
class FitEffects:
    """Measures edits on prompts as they are served, without the transient system prompt.

    Attributes:
        instrument: Measures the model.
        request: Says how directions are applied, and on which prompts they are measured.
        spec: The served model's.
        behaviour_tokens: Tokens that begin an answer of the behaviour; empty where only damage is
            measured.
        scope: Tokens on which edits act.
    """

    instrument: Instrument
    request: FitRequest
    spec: ModelSpec
    behaviour_tokens: tuple[int, ...]
    scope: Scope
    _plain: dict[_Prompts, Tensor] = field(default_factory=dict)

    async def base(self, rule: SelectionRule) -> dict[str, float]:
        """Return the unedited model's log-odds on the prompts of each score that has them."""
        validation = self.request.data.validation
        match rule:
            case SelectionRule.EFFECT:
                return {
                    "bypass": await self._log_odds(validation.positive.served, None),
                    "induce": await self._log_odds(validation.negative.served, None),
                }
            case SelectionRule.LOG_ODDS | SelectionRule.LOG_ODDS_FALL:
                return {"log_odds": await self._log_odds(validation.negative.served, None)}
        return {}

    async def scores(self, direction: Direction, rule: SelectionRule) -> dict[str, float]:
        """Return the scores of `steering.fit.Candidate` that `rule` compares, by name."""
        validation = self.request.data.validation
        positive, negative = validation.positive.served, validation.negative.served
        edit = self.plan(direction)
        match rule:
            case SelectionRule.EFFECT:
                ablation = _bypass_plan(direction, self.spec, self.scope)
                return {
                    "bypass": await self._log_odds(positive, ablation),
                    "induce": await self._log_odds(negative, edit),
                    "kl": await self._kl(negative, ablation),
                }
            case SelectionRule.LOG_ODDS | SelectionRule.LOG_ODDS_FALL:
                return {
                    "log_odds": await self._log_odds(negative, edit),
                    "kl": await self._kl(positive, edit),
                }
        return {}

    def plan(self, direction: Direction) -> SteeringPlan | None:
        """Return the method's operation at the request's strength; None if only read."""
        strength = self.request.options.strength
        method = self.request.method
        return _apply_plan(direction, method, self.spec, strength=strength, scope=self.scope)

    async def damage(self, direction: Direction) -> Damage | None:
        """Measure what changes where nothing should; None for a direction that is only read.

        Measured are KL of the first answer token, and perplexity of the unedited model's answers.
        """
        plan, operation = self.plan(direction), self.request.method.operation
        if plan is None or operation is None:
            return None
        baseline = await Baseline.of(self.instrument, self.unchanged_prompts[1])
        return Damage(
            kl=await baseline.kl(plan),
            perplexity=await baseline.perplexity_under(plan),
            base_perplexity=baseline.perplexity,
            operation=operation.value,
            strength=self.request.options.strength,
        )

    @property
    def moves_positive(self) -> bool:
        """Whether the method moves positive activations; otherwise it moves negative ones."""
        return self.request.method.name in _MOVES_POSITIVE

    @property
    def unchanged_prompts(self) -> tuple[str, _Prompts]:
        """What the prompts are called that should not change, and the prompts."""
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


async def derive_behaviour_tokens(
    instrument: Instrument, data: FitData, rule: SelectionRule
) -> tuple[int, ...]:
    """Return tokens that begin answers to training prompts of one side and not of the other.

    The side is the positive one, which edits lead to; for a behaviour that is to fall the negative
    one, which they lead away from.

    Raises:
        FitError: There are none: the first token of an answer does not show the behaviour.
    """
    sides = [data.train.positive, data.train.negative]
    if rule is SelectionRule.LOG_ODDS_FALL:
        sides.reverse()
    found = distinguishing_tokens(*[await instrument.next_token(side.served) for side in sides])
    if not found:
        raise FitError(
            "answers to positive and to negative prompts begin alike, so the behaviour cannot be "
            "read off the first token; give options.behaviour_tokens, or options.selection "
            "'separation'",
            param="options.behaviour_tokens",
        )
    return found


def reading_vector(direction: Direction, layer: int, positive: Tensor, negative: Tensor) -> Tensor:
    """Return the [d] that samples are projected on: the vector, probe weight or first axis.

    Maps have none of these: theirs is the difference in means of positive [N, d] and negative
    [M, d].
    """
    name = {
        DirectionKind.VECTOR: "vector",
        DirectionKind.PROBE: "weight",
        DirectionKind.BASIS: "basis",
        DirectionKind.PLANE: "basis",
    }.get(direction.kind)
    if name is None:
        return positive.mean(dim=0) - negative.mean(dim=0)
    found = direction.at(layer)[name]
    return found[0] if found.ndim == 2 else found


def dose_resid_norms(
    direction: Direction, method: Method, hidden: Mapping[int, Tensor], spec: ModelSpec
) -> dict[int, float]:
    """Return the mean length of what strength 1 adds to hidden {layer: [N, d]}, in mean norms.

    Empty for methods that are only read and for rotations, which add nothing of a fixed length.
    """
    doses = {}
    for layer in direction.layers:
        added = _added(direction, method, layer, hidden[layer])
        norm = spec.resid_norms.get(SitePoint(layer, direction.site))
        if added is not None and norm:
            doses[layer] = float(added.norm(dim=-1).mean()) / norm
    return doses


def _added(direction: Direction, method: Method, layer: int, hidden: Tensor) -> Tensor | None:
    tensors = {name: tensor.float() for name, tensor in direction.at(layer).items()}
    match method.operation:
        case Operation.ADD:
            return tensors["vector"]
        case Operation.ABLATE:
            return (hidden @ tensors["basis"].T) @ tensors["basis"]
        case Operation.TRANSPORT:
            reads = hidden @ tensors["basis"].T - tensors["offset"]
            return reads @ tensors["map"] + tensors["shift"]
        case Operation.DIAGONAL:
            return hidden * (tensors["scale"] - 1.0) + tensors["shift"]
        case _:
            return None


def _apply_plan(
    direction: Direction, method: Method, spec: ModelSpec, *, strength: float, scope: Scope
) -> SteeringPlan | None:
    """Return the method's operation on tokens of `scope`, where the direction is stored.

    `rotate_to` turns to its first axis. None for a method whose direction is only read.
    """
    if method.operation is None:
        return None
    asked = Intervention.from_dict(
        {
            "operation": method.operation,
            "direction": "fitted",
            "strength": strength,
            "scope": scope.to_dict(),
            **_FIELDS.get(method.operation, {}),
        }
    )
    return _plan([asked], direction, spec)


def _bypass_plan(direction: Direction, spec: ModelSpec, scope: Scope) -> SteeringPlan:
    """Return a plan that ablates the direction wherever the residual stream is written or read.

    It does so on tokens of the scope, without the sinks: the published one takes all tokens, and on
    models with attention sinks the first one alone makes up most of the damage.

    Source: Arditi et al. 2024, arXiv:2406.11717 (directional ablation).
    """
    everywhere = LayerRange.between(0.0, 1.0)
    return _plan(
        [
            Ablate(direction=DirectionRef("fitted"), layers=everywhere, site=site, scope=scope)
            for site in _WRITES
            if site not in spec.unavailable_sites
        ],
        direction,
        spec,
    )


def _plan(interventions: list[Intervention], direction: Direction, spec: ModelSpec) -> SteeringPlan:
    return compile_plan([Steer(asked, direction) for asked in interventions], [], spec)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
