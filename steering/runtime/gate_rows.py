"""Token gates on the device: a number from 0 to 1 for each row of a table and each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.gates import Measure, Opens
from steering.plan import PlannedGate

from .kernel import project
from .selection import Selection

__all__ = ["GateRows", "gate_values", "gated", "pack_gates"]


@dataclass(frozen=True, eq=False)
class GateRows:
    """The gates of a table's rows; float32 [R] unless said otherwise.

    Attributes:
        read: [R, d]: unit vectors, or weights of probes.
        bias: Of the probes, else 0.
        threshold: In units of the row's score.
        sign: 1 where the gate opens above the threshold, -1 where below.
        steepness: 0 for a hard threshold; None where all are hard.
        is_cosine: [R] bool, rows scored by cosine; None where there are none.
        is_probability: [R] bool, rows scored by probability; None where there are none.
    """

    read: Tensor
    bias: Tensor
    threshold: Tensor
    sign: Tensor
    steepness: Tensor | None
    is_cosine: Tensor | None
    is_probability: Tensor | None


def pack_gates(gates: Sequence[PlannedGate], device: torch.device) -> GateRows:
    """One row per gate, on `device`."""
    asked = [planned.gate for planned in gates]

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).to(device)

    def flags(measure: Measure) -> Tensor | None:
        found = [gate.measure is measure for gate in asked]
        return torch.tensor(found).to(device) if any(found) else None

    steepness = [gate.steepness or 0.0 for gate in asked]
    return GateRows(
        read=torch.stack([planned.vector for planned in gates]).to(device),
        bias=column([planned.bias for planned in gates]),
        threshold=column([gate.threshold for gate in asked]),
        sign=column([1.0 if gate.opens is Opens.ABOVE else -1.0 for gate in asked]),
        steepness=column(steepness) if any(steepness) else None,
        is_cosine=flags(Measure.COSINE),
        is_probability=flags(Measure.PROBABILITY),
    )


def gate_values(hidden: Tensor, rows: GateRows, selection: Selection) -> Tensor:
    """How far each row's gate is open on each token, shaped as the selection's gains.

    hidden [T, d] float32. With e = sign (score - threshold), a hard gate is 1[e > 0] and a soft
    one 1 / (1 + exp(-k e)). What stands where a row does not act on a token means nothing.
    """
    score = project(hidden, rows.read, selection, rows.bias)
    if rows.is_cosine is not None:
        length = hidden.norm(dim=1).view(*selection.blocks, 1)
        cosine = torch.where(length > 0, score / length, torch.zeros_like(score))
        score = torch.where(selection.of_rows(rows.is_cosine), cosine, score)
    if rows.is_probability is not None:
        is_probability = selection.of_rows(rows.is_probability)
        score = torch.where(is_probability, torch.sigmoid(score), score)
    excess = selection.of_rows(rows.sign) * (score - selection.of_rows(rows.threshold))
    hard = (excess > 0).to(torch.float32)
    if rows.steepness is None:
        return hard
    steepness = selection.of_rows(rows.steepness)
    return torch.where(steepness > 0, torch.sigmoid(steepness * excess), hard)


def gated(selection: Selection, values: Tensor) -> Selection:
    """The selection with its gains times `values`; zero where a row does not act."""
    return selection.with_gains(torch.where(selection.acts, selection.gains * values, 0.0))
