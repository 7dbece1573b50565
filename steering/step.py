"""What the kernel does in one step, prepared on the host and uploaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .edit import EditForm
from .kernel import Selection, diagonal, low_rank, restore_norm, turn
from .plan import SteeringPlan
from .scopes import PositionContext
from .sites import SitePoint
from .tables import LaneTable, PackedTables

__all__ = ["SPARSE_ABOVE", "LaneStep", "StepEdits", "StepRow", "gain_matrix", "prepare"]

_Gains = NDArray[np.float32]

SPARSE_ABOVE: Final = 64
"""Rows per row in use from which gathering beats the dense product (bench/kernel.py)."""

_FEW_TOKENS: Final = 0.5
"""Share of tokens below which only the steered ones are taken out, edited and put back."""


@dataclass(frozen=True, eq=False)
class StepRow:
    """One request's tokens in a step: positions [start, stop) of a plan, in batch order."""

    plan: SteeringPlan | None
    start: int
    stop: int
    context: PositionContext


@dataclass(frozen=True, eq=False)
class LaneStep:
    """A lane's table with this step's selections on its device."""

    table: LaneTable
    ranks: Selection | None
    rows: Selection | None
    active: Tensor | None

    def apply(self, hidden: Tensor) -> Tensor:
        """Edit hidden [T, d] float32; returns a new tensor."""
        table, rows = self.table, self.rows
        if table.lane.form is EditForm.LOW_RANK:
            result = low_rank(hidden, table.rows, self.ranks, table.shift, rows)
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
        return result if self.active is None else restore_norm(hidden, result, self.active)


@dataclass(frozen=True, eq=False)
class StepEdits:
    """Everything the hooks need in one step.

    Attributes:
        lanes: By point, in order; points without live edits are absent.
        tokens: Per device, the batch rows that are steered, or None when all are edited.
    """

    lanes: Mapping[SitePoint, tuple[LaneStep, ...]]
    tokens: Mapping[torch.device, Tensor] | None

    @property
    def points(self) -> frozenset[SitePoint]:
        """Where something is edited."""
        return frozenset(self.lanes)

    def apply(self, point: SitePoint, hidden: Tensor) -> Tensor:
        """Edit hidden [..., d] of any float dtype; returns a new tensor, or hidden where idle."""
        lanes = self.lanes.get(point)
        if lanes is None:
            return hidden
        rows = hidden.flatten(0, -2)
        if self.tokens is None:
            return self._edit(lanes, rows).view_as(hidden)
        tokens = self.tokens[lanes[0].table.device]
        edited = self._edit(lanes, rows.index_select(0, tokens))
        return rows.index_copy(0, tokens, edited).view_as(hidden)

    @staticmethod
    def _edit(lanes: Sequence[LaneStep], hidden: Tensor) -> Tensor:
        work = hidden.to(torch.float32)
        for lane in lanes:
            work = lane.apply(work)
        return work.to(hidden.dtype)


def gain_matrix(rows: Sequence[StepRow], tables: PackedTables) -> _Gains:
    """_Gains [T, columns] of a step's tokens, in batch order."""
    gains = np.zeros((sum(row.stop - row.start for row in rows), len(tables.keys)), np.float32)
    offset = 0
    for row in rows:
        count = row.stop - row.start
        if row.plan is not None and row.plan.interventions:
            columns = tables.columns_of(row.plan)
            own = row.plan.gains(row.start, row.stop, row.context)
            gains[offset : offset + count, columns] = own
        offset += count
    return gains


def prepare(gains: _Gains, tables: PackedTables) -> StepEdits | None:
    """Selections for every lane with a gain other than zero, or None where there is none."""
    steered = gains.any(axis=1)
    if not steered.any():
        return None
    tokens: Mapping[torch.device, Tensor] | None = None
    if steered.mean() < _FEW_TOKENS:
        chosen = np.flatnonzero(steered)
        gains = gains[chosen]
        tokens = {device: torch.from_numpy(chosen).to(device) for device in tables.devices}
    selector = _Selector(gains)
    lanes: dict[SitePoint, tuple[LaneStep, ...]] = {}
    for point, point_tables in tables.lanes.items():
        live = tuple(step for table in point_tables if (step := selector.lane_step(table)))
        if live:
            lanes[point] = live
    return StepEdits(lanes, tokens)


class _Selector:
    """Builds selections of one gain matrix; lanes with equal columns share theirs."""

    def __init__(self, gains: _Gains) -> None:
        self._gains = gains
        self._used: NDArray[np.bool_] = np.any(gains, axis=0)
        self._made: dict[tuple[bytes, torch.device], Selection] = {}

    def lane_step(self, table: LaneTable) -> LaneStep | None:
        columns: NDArray[np.int64] = np.union1d(table.rank_columns, table.columns)
        if not np.any(self._used[columns]):
            return None
        active = None
        if table.lane.restore_norm:
            mask = self._gains[:, columns].any(axis=1)
            active = torch.from_numpy(mask).to(table.device)
        return LaneStep(
            table=table,
            ranks=self._selection(table.rank_columns, table.device),
            rows=self._selection(table.columns, table.device),
            active=active,
        )

    def _selection(self, columns: NDArray[np.int64], device: torch.device) -> Selection | None:
        if not len(columns):
            return None
        key = (columns.tobytes(), device)
        if key not in self._made:
            self._made[key] = _select(self._gains[:, columns], device)
        return self._made[key]


def _select(gains: _Gains, device: torch.device) -> Selection:
    tokens, rows = np.nonzero(gains)
    counts = np.bincount(tokens, minlength=len(gains))
    most = max(int(counts.max(initial=0)), 1)
    if gains.shape[1] <= SPARSE_ABOVE * most:
        return Selection(torch.from_numpy(np.ascontiguousarray(gains)).to(device))
    slots = np.arange(len(tokens)) - np.repeat(np.cumsum(counts) - counts, counts)
    index = np.zeros((len(gains), most), dtype=np.int64)
    values = np.zeros((len(gains), most), dtype=np.float32)
    index[tokens, slots] = rows
    values[tokens, slots] = gains[tokens, rows]
    return Selection(torch.from_numpy(values).to(device), torch.from_numpy(index).to(device))
