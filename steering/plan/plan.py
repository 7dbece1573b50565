"""A request's steering, compiled against a model: values the engine needs and nothing else."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steering.documents import PositionContext
from steering.errors import InvalidFieldError, NoEffectError
from steering.sites import Site, SitePoint

from .planned_intervention import PlannedGate, PlannedIntervention

_Gains = NDArray[np.float32]

# What happens at these sites of the last layer reaches no later token, only the token's own logits.
_OWN_LOGITS_ONLY: Final = frozenset(
    {Site.HEADS, Site.ATTN_OUT, Site.RESID_MID, Site.NORM2, Site.MLP_OUT, Site.RESID_POST}
)
_PROBE_WINDOW: Final = 4096

WARN_DOSE: Final = 0.5
"""Mean residual norms, over all layers, beyond which additions are warned of.

On SmolLM2-135M-Instruct perplexity is 1.6 to 9 times its own at this dose and 5 to 400 times at 1,
along a fitted direction as along a random one, whether one layer adds it or all share it. The
embedded model bears more: at most 1.1 times here and 3.5 at 1 (docs/steering.md).
"""


@dataclass(frozen=True, eq=False)
class PlannedMonitor:
    """A read-out: score = h . vector + bias, before the edits at the point.

    Attributes:
        label: The direction with its version, as the answer names it.
        point: The point whose activation it reads.
        vector: [d] float32: a unit vector, or the weight of a probe.
        bias: Bias of a probe, else 0.
    """

    label: str
    point: SitePoint
    vector: Tensor
    bias: float


@dataclass(frozen=True, eq=False)
class SteeringPlan:
    """The steering of one request, in order.

    Attributes:
        interventions: The interventions, in order of application.
        monitors: The read-outs, in the order of the request.
        num_layers: Number of layers of the model it was compiled for.
    """

    interventions: tuple[PlannedIntervention, ...] = ()
    monitors: tuple[PlannedMonitor, ...] = ()
    num_layers: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether it neither edits nor reads."""
        return not self.interventions and not self.monitors

    @cached_property
    def uses_regions(self) -> bool:
        """Whether its gains depend on regions."""
        return any(item.intervention.scope.uses_regions for item in self.interventions)

    @cached_property
    def region_scope(self) -> str | None:
        """Path of the first scope that names regions."""
        found = (i.path for i in self.interventions if i.intervention.scope.uses_regions)
        return next((f"{path}.scope" for path in found), None)

    @cached_property
    def latches(self) -> tuple[PlannedGate, ...]:
        """The gates of the request, each once."""
        gates = [item.latch for item in self.interventions if item.latch is not None]
        return tuple({gate.key: gate for gate in gates}.values())

    @cached_property
    def has_token_gates(self) -> bool:
        """Whether tokens decide for themselves whether some intervention acts."""
        return any(item.has_token_gate for item in self.interventions)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides what it does."""
        state = hashlib.blake2b(digest_size=16)
        for item in self.interventions:
            asked, latch = item.intervention, item.latch
            when: tuple[Any, ...] = (
                item.strength,
                asked.scope.to_dict(),
                asked.schedule.to_dict(),
                *(() if latch is None else (latch.key,)),
            )
            state.update(item.key + repr(when).encode())
        for monitor in self.monitors:
            state.update(repr((monitor.label, monitor.point, monitor.bias)).encode())
        return state.hexdigest()

    @cached_property
    def generated_gains(self) -> _Gains | None:
        """[len(interventions)] gains of every generated token, or None where they vary."""
        gains = [item.generated_gain for item in self.interventions]
        return None if None in gains else np.array(gains, dtype=np.float32)

    def gains(self, start: int, stop: int, context: PositionContext) -> _Gains:
        """Gains at absolute positions [start, stop): [stop - start, len(interventions)].

        Before the gates of their tokens, which the device decides.
        """
        if not self.interventions:
            return np.zeros((stop - start, 0), dtype=np.float32)
        constant = self.generated_gains
        if constant is not None and start >= context.num_prompt_tokens:
            gains = constant[None].repeat(stop - start, axis=0)
        else:
            columns = [item.gains(start, stop, context) for item in self.interventions]
            gains = np.stack(columns, axis=1)
        return gains * self._openness(context) if self.latches else gains

    def has_final_gains(self, start: int, context: PositionContext) -> bool:
        """Whether every position from `start` on has the same gains, whatever becomes known."""
        is_constant = self.generated_gains is not None and not self.latches
        return is_constant and start >= context.num_prompt_tokens

    def _openness(self, context: PositionContext) -> _Gains:
        """[len(interventions)] 1 where no gate of the request is closed or undecided, else 0."""
        latches = [item.latch for item in self.interventions]
        is_open = [latch is None or latch.key in context.open_gates for latch in latches]
        return np.array(is_open, dtype=np.float32)

    def reads_prompt(self, context: PositionContext, num_prompt_tokens: int) -> bool:
        """Whether every token of the prompt must be computed, whatever the prefix cache holds.

        So it is where a gate reads the mean of the prompt; and where tokens of it have gates of
        their own, because the cache does not know which of them were open.
        """
        if any(gate.gate.reads_whole_prompt for gate in self.latches):
            return True
        gated = [item for item in self.interventions if item.has_token_gate]
        return any(item.gains(0, num_prompt_tokens - 1, context).any() for item in gated)

    def block_digest(self, start: int, stop: int, context: PositionContext) -> bytes:
        """Digest of the edits and gains of positions [start, stop); empty where there are none."""
        gains = self.gains(start, stop, context)
        active = [
            item.key + gains[:, column].tobytes()
            for column, item in enumerate(self.interventions)
            if gains[:, column].any()
        ]
        if not active:
            return b""
        return hashlib.blake2b(b"".join(sorted(active)), digest_size=16).digest()

    @cached_property
    def dose(self) -> float | None:
        """Length of all pushes onto the residual stream together, in mean residual norms.

        It is the sum over layers and interventions, whatever their scopes: what a token gets at
        most, as what is added at one layer is still there at the next. None without any.
        """
        doses = [item.dose for item in self.interventions if item.dose is not None]
        return math.fsum(doses) if doses else None

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is likely not meant, in words."""
        if self.dose is None or self.dose <= WARN_DOSE:
            return ()
        count = sum(len(item.layers) for item in self.interventions if item.dose is not None)
        remedy = "a lower strength, fewer layers, or distribute: true, which shares it"
        return (
            f"additions at {count} layers add up to {self.dose:.3g} residual norms; expected at "
            f"most {WARN_DOSE:g}, beyond which real models mostly fall apart: {remedy}",
        )

    def reports(self) -> tuple[dict[str, Any], ...]:
        """What was applied, one report per intervention."""
        return tuple(item.report() for item in self.interventions)

    def check_effect(
        self,
        context: PositionContext,
        *,
        num_prompt_tokens: int,
        max_tokens: int,
        returns_prompt_logits: bool = False,
    ) -> None:
        """Check that every intervention touches a token that influences what is returned.

        An intervention that would act only on tokens a short answer does not reach is let pass
        beside others that act.

        Args:
            context: Meaning of positions; regions as known at admission.
            num_prompt_tokens: Tokens of the prompt.
            max_tokens: Most tokens generated; the last one is never run through the model.
            returns_prompt_logits: Whether log-probabilities of prompt tokens are returned.

        Raises:
            NoEffectError: It does not; `param` names its scope by the intervention's path.
            InvalidFieldError: A gate is decided on the prompt, and there is none; `param` is
                `prompt_tokens`.
        """
        if self.latches and context.num_prompt_tokens < 1:
            raise InvalidFieldError(
                "prompt_tokens is 0, and a gate per request is decided on the last token of the "
                "prompt; expected at least 1",
                param="prompt_tokens",
            )
        stop = num_prompt_tokens + max(max_tokens, 1) - 1
        if max_tokens == 0:  # the last prompt token's logits are not returned
            stop = num_prompt_tokens - 1
        effective = [
            self._acts(item, context, stop, num_prompt_tokens, returns_prompt_logits)
            for item in self.interventions
        ]
        for index, item in enumerate(self.interventions):
            if effective[index]:
                continue
            may_act_later = any(effective) and self._acts_on_long_answers(item, context)
            if not may_act_later:
                raise NoEffectError(
                    f"the scope {item.intervention.scope.to_dict()} of {item.reference} selects no "
                    f"token that influences the answer ({num_prompt_tokens} prompt tokens, "
                    f"max_tokens {max_tokens}); widen the scope or remove the intervention",
                    param=f"{item.path}.scope",
                )

    def _acts(
        self,
        item: PlannedIntervention,
        context: PositionContext,
        stop: int,
        num_prompt_tokens: int,
        returns_prompt_logits: bool,
    ) -> bool:
        scope = item.intervention.scope
        if scope.uses_regions and stop > num_prompt_tokens:
            return True  # regions of generated tokens are known only when they are sampled
        mask = scope.mask(0, stop, context)
        if self._reaches_own_logits_only(item) and not returns_prompt_logits:
            mask = mask[num_prompt_tokens - 1 :]
        return bool(mask.any())

    def _reaches_own_logits_only(self, item: PlannedIntervention) -> bool:
        return item.site in _OWN_LOGITS_ONLY and item.layers == (self.num_layers - 1,)

    @staticmethod
    def _acts_on_long_answers(item: PlannedIntervention, context: PositionContext) -> bool:
        if item.intervention.scope.uses_regions:
            return True
        start = context.num_prompt_tokens
        return bool(item.intervention.scope.mask(start, start + _PROBE_WINDOW, context).any())
