"""One lane of one point in one step: its table, and which of its rows act on which token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steering.operations import EditForm

from .gate_log import GateLog
from .gate_rows import GateRows, gate_values, gated
from .kernel import diagonal, low_rank, restore_norm, turn
from .selection import Selection
from .tables import LaneTable

__all__ = ["LaneGains", "LaneStep"]


@dataclass(frozen=True, eq=False)
class LaneGains:
    """Gains of a lane's rows of V and C (`ranks`), and of its other rows."""

    ranks: Selection | None
    rows: Selection | None

    @cached_property
    def acts(self) -> Tensor:
        """[T] whether any row acts on the token."""
        found = [s.acts.any(dim=2).flatten() for s in (self.ranks, self.rows) if s is not None]
        return torch.stack(found).any(dim=0)

    def to(self, device: torch.device) -> LaneGains:
        """The same on another device; does not wait for either."""
        moved = (s if s is None else s.to(device) for s in (self.ranks, self.rows))
        return LaneGains(*moved)


@dataclass(frozen=True, eq=False)
class LaneStep:
    """A lane's table with this step's selections.

    Attributes:
        table: The lane's.
        gains: Before gates, on the device where these are decided: the lane's own without gates.
        active: [T] tokens whose norm is restored, on the lane's device; None where none is.
    """

    table: LaneTable
    gains: LaneGains
    active: Tensor | None

    @property
    def has_gates(self) -> bool:
        """Whether its tokens have gates."""
        return self.table.lane.gate_point is not None

    def decide(self, hidden: Tensor, log: GateLog) -> LaneGains:
        """The gains after the gates, which read hidden [T, d] float32."""
        table, gains = self.table, self.gains
        return LaneGains(
            _decided(gains.ranks, table.rank_gates, table.rank_columns, hidden, log),
            _decided(gains.rows, table.gates, table.columns, hidden, log),
        )

    def apply(self, hidden: Tensor, gains: LaneGains) -> Tensor:
        """Edit hidden [T, d] float32; returns a new tensor."""
        table, rows = self.table, gains.rows
        if table.lane.form is EditForm.LOW_RANK:
            result = low_rank(hidden, table.rows, gains.ranks, table.shift, rows)
        elif table.lane.form is EditForm.DIAGONAL:
            assert rows is not None
            assert table.scale is not None
            assert table.shift is not None
            result = diagonal(hidden, table.scale, table.shift, rows)
        else:
            assert rows is not None
            assert table.read is not None
            assert table.target is not None
            result = turn(hidden, table.read, table.target, rows)
        if self.active is None:
            return result
        active = self.active & gains.acts if self.has_gates else self.active
        return restore_norm(hidden, result, active)


def _decided(
    selection: Selection | None,
    gates: GateRows | None,
    columns: NDArray[np.int64],
    hidden: Tensor,
    log: GateLog,
) -> Selection | None:
    if selection is None or gates is None:
        return selection
    values = gate_values(hidden, gates, selection)
    log.note(selection, columns, values)
    return gated(selection, values)
