"""One intervention of a plan: its edits in the kernel's form, its gain at every position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steering.documents import CONSTANT, Intervention, PositionContext, Tokens
from steering.operations import Edit, EditForm
from steering.sites import Site, SitePoint

from .planned_gate import PlannedGate

__all__ = ["Lane", "PlannedEdit", "PlannedIntervention"]

_Gains = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lane:
    """Edits at one point that act at once, on activations all edits of earlier lanes have changed.

    Attributes:
        stage: Order among a request's edits at the point.
        form: Form shared by the lane's edits.
        restore_norm: Whether the norm is restored after the lane.
        gate_point: Where the gates of its tokens read; None where it has none. At its own point
            they read what the earlier lanes left, elsewhere what arrives there.
    """

    stage: int
    form: EditForm
    restore_norm: bool
    gate_point: SitePoint | None = None

    @property
    def takes_shifts(self) -> bool:
        """Whether a plain shift that follows may act in it."""
        is_plain = self.form is EditForm.LOW_RANK and not self.restore_norm
        return is_plain and self.gate_point is None


@dataclass(frozen=True, eq=False)
class PlannedEdit:
    """An edit with its point, its place in the order there, and the gate of its tokens."""

    point: SitePoint
    lane: Lane
    edit: Edit
    gate: PlannedGate | None = None


@dataclass(frozen=True, eq=False)
class PlannedIntervention:
    """One intervention of a plan.

    Attributes:
        key: Digest of its edits and their lanes: equal keys may share table rows.
        intervention: The intervention as the request states it.
        reference: The direction with its version.
        strength: The gain where the scope holds and the schedule is 1.
        layers: The layers it acts at, ascending.
        site: The site it acts at.
        edits: Its edits, one per layer.
        latch: The gate that is decided once for the request, or None.
        path: Its place in the request, for errors and the answer.
    """

    key: bytes
    intervention: Intervention
    reference: str
    strength: float
    layers: tuple[int, ...]
    site: Site
    edits: tuple[PlannedEdit, ...]
    latch: PlannedGate | None = None
    path: str = ""

    @property
    def gates(self) -> tuple[PlannedGate, ...]:
        """Its gates: that of the request, or those of the tokens at each edit."""
        own = (self.latch, *(planned.gate for planned in self.edits))
        return tuple(gate for gate in own if gate is not None)

    @property
    def has_token_gate(self) -> bool:
        """Whether each token decides for itself whether it acts."""
        return bool(self.gates) and self.latch is None

    @property
    def rank(self) -> int:
        """Largest rank of its edits."""
        return max(planned.edit.rank for planned in self.edits)

    def gains(self, start: int, stop: int, context: PositionContext) -> _Gains:
        """Its gain at each absolute position of [start, stop)."""
        mask = self.intervention.scope.mask(start, stop, context)
        schedule = self.intervention.schedule
        if schedule == CONSTANT:
            return np.where(mask, np.float32(self.strength), np.float32(0.0))
        factors = schedule.factors(start, stop, context.num_prompt_tokens)
        return np.where(mask, self.strength * factors, 0.0).astype(np.float32)

    @cached_property
    def generated_gain(self) -> float | None:
        """The gain of every generated token where it is one number, else None."""
        scope = self.intervention.scope
        selectors = (scope, scope.exclude)
        varies = any(s.windows or s.generated_windows or s.regions for s in selectors)
        if varies or self.intervention.schedule != CONSTANT:
            return None
        generated = {Tokens.ALL, Tokens.GENERATED}
        acts = bool(generated & set(scope.tokens))
        return self.strength if acts and not generated & set(scope.exclude.tokens) else 0.0

    def report(self) -> dict[str, Any]:
        """The answer's report of what was applied."""
        report: dict[str, Any] = {
            "path": self.path,
            "operation": self.intervention.operation.value,
            "direction": self.reference,
            "layers": list(self.layers),
            "site": self.site.value,
            "strength": self.strength,
            "unit": self.intervention.unit.value,
            "scope": self.intervention.scope.to_dict(),
            "rank": self.rank,
        }
        if self.gates:
            report["gate"] = self._gate_report()
        return report

    def _gate_report(self) -> dict[str, Any]:
        first = self.gates[0]
        asked = {name: value for name, value in first.gate.to_dict().items() if name != "layer"}
        return asked | {
            "direction": first.reference,
            "site": first.point.site.value,
            "layers": sorted({gate.point.layer for gate in self.gates}),
        }
