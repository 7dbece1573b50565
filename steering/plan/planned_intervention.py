"""One intervention of a plan: its edits in the kernel's form, its gates, its gain by position."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steering.documents import (
    CONSTANT,
    Gate,
    Intervention,
    Measure,
    Opens,
    PositionContext,
    RequestGate,
    TokenGate,
    Tokens,
)
from steering.operations import Edit, EditForm
from steering.sites import Site, SitePoint
from steering.tensor_bytes import tensor_bytes

_Vector = NDArray[np.float64]
_Gains = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PlannedGate:
    """One gate at one point.

    Attributes:
        gate: The gate as the request states it.
        reference: The direction with its version.
        point: The point whose activation it reads.
        vector: [d] float32, CPU: a unit vector, or the weight of a probe for `logit` and
            `probability`.
        bias: Bias of the probe for `logit` and `probability`, else 0.
    """

    gate: Gate
    reference: str
    point: SitePoint
    vector: Tensor
    bias: float

    @property
    def steepness(self) -> float | None:
        """Slope of a gate per token that opens gradually, in 1 / units of the score, else None."""
        return self.gate.steepness if isinstance(self.gate, TokenGate) else None

    @cached_property
    def key(self) -> bytes:
        """Digest of everything that decides when it is open."""
        gate = self.gate
        token = gate.token if isinstance(gate, RequestGate) else None
        how = (gate.per, gate.threshold, gate.opens, gate.measure, token, self.steepness)
        state = hashlib.blake2b(repr((how, self.point, self.bias)).encode(), digest_size=16)
        state.update(tensor_bytes(self.vector))
        return state.digest()

    def score(self, hidden: _Vector) -> float:
        """The score of an activation [d], in float64."""
        measure, vector = self.gate.measure, self._vector
        along = float(hidden @ vector) + self.bias
        if measure is Measure.PROBABILITY:
            return float(0.5 * (1.0 + np.tanh(0.5 * along)))  # the sigmoid, without overflow
        if measure is Measure.COSINE:
            return _cosine(hidden, vector)
        if measure is Measure.CONDITION:
            return _cosine(hidden, np.tanh(along * vector))
        return along

    def is_open(self, score: float) -> bool:
        """Whether a score is on the open side of the threshold."""
        threshold = self.gate.threshold
        return score > threshold if self.gate.opens is Opens.ABOVE else score < threshold

    @cached_property
    def _vector(self) -> _Vector:
        vector: _Vector = self.vector.numpy().astype(np.float64)
        return vector


def _cosine(left: _Vector, right: _Vector) -> float:
    length = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / length if length > 0 else 0.0


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
    """An edit with its point, its place in the order there, and the gate of its tokens.

    Attributes:
        point: The point.
        lane: Its place in the order there.
        edit: The edit.
        gate: The gate of its tokens, or None.
        dose: Length of the constant push that a gain of 1 adds to the residual stream, in mean
            residual norms of the layer; None for an edit that pushes by no fixed length, and
            elsewhere than on the stream.
    """

    point: SitePoint
    lane: Lane
    edit: Edit
    gate: PlannedGate | None = None
    dose: float | None = None


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
        """The intervention's gates: that of the request, or those of the tokens at each edit."""
        own = (self.latch, *(planned.gate for planned in self.edits))
        return tuple(gate for gate in own if gate is not None)

    @property
    def has_token_gate(self) -> bool:
        """Whether each token decides for itself whether it acts."""
        return bool(self.gates) and self.latch is None

    @property
    def dose(self) -> float | None:
        """Length of its pushes at all layers together, in residual norms; None without any."""
        doses = [planned.dose for planned in self.edits if planned.dose is not None]
        gain = abs(self.strength * self.intervention.schedule.peak)
        return gain * math.fsum(doses) if doses else None

    @property
    def rank(self) -> int:
        """Largest rank of its edits."""
        return max(planned.edit.rank for planned in self.edits)

    def gains(self, start: int, stop: int, context: PositionContext) -> _Gains:
        """The intervention's gain at each absolute position of [start, stop)."""
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
