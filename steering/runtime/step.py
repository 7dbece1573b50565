"""What the kernel does in one step, prepared on the host and uploaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steering.documents import PositionContext
from steering.plan import SteeringPlan
from steering.sites import SitePoint

from .lane_step import GateLog, LaneStep
from .selection import Selection, TokenBlocks, cut_tokens, select
from .tables import LaneTable, PackedTables

_Gains = NDArray[np.float32]

_FEW_TOKENS: Final = 0.5
"""Share of tokens below which only the steered ones are taken out, edited and put back."""


@dataclass(frozen=True, eq=False)
class StepRow:
    """One request's tokens in a step: positions [start, stop) under its plan, or unsteered."""

    plan: SteeringPlan | None
    start: int
    stop: int
    context: PositionContext


@dataclass(frozen=True, eq=False)
class StepPart:
    """Tokens that lie together, with what the hooks do to them.

    Attributes:
        tokens: Which, counted in the edited tokens.
        lanes: By point, in order; points without live edits are absent.
        later_gates: By point, lanes of later points whose gates read the activation there.
    """

    tokens: slice
    lanes: Mapping[SitePoint, tuple[LaneStep, ...]]
    later_gates: Mapping[SitePoint, tuple[LaneStep, ...]]

    def apply(self, point: SitePoint, arrived: Tensor, log: GateLog) -> Tensor:
        """Edit its tokens [t, d] of any float dtype; returns a new tensor, or them where idle."""
        lanes, later_gates = self.lanes.get(point, ()), self.later_gates.get(point, ())
        if not lanes and not later_gates:
            return arrived
        work = arrived.to(torch.float32)
        for lane in later_gates:
            log.decide_ahead(lane, work)
        for lane in lanes:
            work = _decided(lane, point, work, log).apply(work)
        return work.to(arrived.dtype) if lanes else arrived


@dataclass(frozen=True, eq=False)
class StepEdits:
    """What the hooks do in one step.

    Attributes:
        parts: One after the other they are the edited tokens.
        edited: Rows of the batch that are edited, ascending; None when all are.
        tokens: `edited` on each device that edits; empty when all rows are.
    """

    parts: tuple[StepPart, ...]
    edited: NDArray[np.int64] | None
    tokens: Mapping[torch.device, Tensor]

    @cached_property
    def points(self) -> frozenset[SitePoint]:
        """Where something is edited, or read by a gate."""
        return frozenset(point for part in self.parts for point in (*part.lanes, *part.later_gates))

    @cached_property
    def has_gates(self) -> bool:
        """Whether some token has a gate."""
        lanes = (lane for part in self.parts for lanes in part.lanes.values() for lane in lanes)
        return any(lane.has_gates for lane in lanes)

    def shortcut(self, point: SitePoint) -> Callable[[Tensor], Tensor] | None:
        """What edits hidden [1, T, d] as `apply` does, in few operations; None where nothing can.

        See `LaneStep.shortcut`.
        """
        if self.edited is not None or len(self.parts) > 1:
            return None
        lanes = self.parts[0].lanes.get(point, ())
        if len(lanes) != 1 or point in self.parts[0].later_gates:
            return None
        return lanes[0].shortcut()

    def apply(self, point: SitePoint, hidden: Tensor, log: GateLog) -> Tensor:
        """Edit hidden [..., d] of any float dtype; returns a new tensor, or hidden where idle."""
        if point not in self.points:
            return hidden
        rows = hidden.flatten(0, -2)
        # Where few tokens are steered, only these go through float32 and the products.
        tokens = None if self.edited is None else self.tokens[hidden.device]
        arrived = rows if tokens is None else rows.index_select(0, tokens)
        edited = self._edited(point, arrived, log)
        if edited is arrived:
            return hidden
        if tokens is not None:
            edited = rows.index_copy(0, tokens, edited)
        return edited.view_as(hidden)

    def _edited(self, point: SitePoint, arrived: Tensor, log: GateLog) -> Tensor:
        if len(self.parts) == 1:
            return self.parts[0].apply(point, arrived, log)
        pieces = [part.apply(point, arrived[part.tokens], log) for part in self.parts]
        return torch.cat(pieces) if any(point in part.lanes for part in self.parts) else arrived


def _decided(lane: LaneStep, point: SitePoint, hidden: Tensor, log: GateLog) -> LaneStep:
    if not lane.has_gates:
        return lane
    return lane.decide(hidden, log) if lane.table.lane.gate_point == point else log.take(lane)


def gain_matrix(rows: Sequence[StepRow], tables: PackedTables) -> _Gains:
    """Gains [T, columns] of a step's tokens, in batch order."""
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
    edited = None
    if steered.mean() < _FEW_TOKENS:
        edited = np.flatnonzero(steered)
        gains = gains[edited]
    parts = tuple(_part(gains, blocks, tables) for blocks in cut_tokens(gains != 0))
    tokens = {} if edited is None else _on_each(edited, tables.devices)
    return StepEdits(parts, edited, tokens)


def _part(gains: _Gains, blocks: TokenBlocks, tables: PackedTables) -> StepPart:
    selector = _Selector(gains, blocks)
    lanes: dict[SitePoint, tuple[LaneStep, ...]] = {}
    later_gates: dict[SitePoint, tuple[LaneStep, ...]] = {}
    for point, point_tables in tables.lanes.items():
        live = tuple(step for table in point_tables if (step := selector.lane_step(table)))
        if live:
            lanes[point] = live
        for lane in live:
            gate_point = lane.table.lane.gate_point
            if gate_point is not None and gate_point != point:
                later_gates[gate_point] = (*later_gates.get(gate_point, ()), lane)
    return StepPart(slice(blocks.start, blocks.stop), lanes, later_gates)


def _on_each(
    edited: NDArray[np.int64], devices: frozenset[torch.device]
) -> dict[torch.device, Tensor]:
    return {device: torch.from_numpy(edited).to(device) for device in devices}


class _Selector:
    """Builds the selections of one part; lanes with equal columns share theirs."""

    def __init__(self, gains: _Gains, blocks: TokenBlocks) -> None:
        self._gains = gains[blocks.start : blocks.stop]
        self._blocks = blocks
        self._used: NDArray[np.bool_] = np.any(self._gains, axis=0)
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
            ranks=self._selection(table.rank_columns, table.gate_device),
            rows=self._selection(table.columns, table.gate_device),
            active=active,
        )

    def _selection(self, columns: NDArray[np.int64], device: torch.device) -> Selection | None:
        if not np.any(self._used[columns]):
            return None  # no such rows, or only those of requests that are not in the step
        key = (columns.tobytes(), device)
        if key not in self._made:
            own = self._gains[:, columns]
            self._made[key] = select(own, self._blocks.size, device, self._blocks.start)
        return self._made[key]
