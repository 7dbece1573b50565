"""A gate compiled against a model: where it reads, what, and when it is open."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steering.documents import Gate, Measure, Opens, RequestGate, TokenGate
from steering.sites import SitePoint
from steering.tensor_bytes import tensor_bytes

__all__ = ["PlannedGate"]

_Vector = NDArray[np.float64]


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
