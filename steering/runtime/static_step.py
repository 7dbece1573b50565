"""Steering of a step that is captured once and replayed: what shapes it, and what is only data.

In a captured step each token gathers its own rows, K of them, whatever that costs: one selection
mode, so that the same launches serve whoever decodes. Row numbers and gains lie in static buffers,
tables in `StaticTables`; rows that nobody fills have a gain of zero and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steering.plan import Lane
from steering.sites import SitePoint

from .lane_step import GateLog, LaneStep
from .selection import Selection, gather_places
from .static_buffers import Field, StaticBuffers
from .static_tables import StaticTables, tensor_names, tensors_of
from .step import StepEdits, StepPart
from .tables import PackedTables

_Columns = NDArray[np.int64]
_Gains = NDArray[np.float32]

_INDEX: Final = "steering.index."
_VALUES: Final = "steering.gains."


@dataclass(frozen=True, slots=True)
class StaticLane:
    """The shape of one live lane: what a captured step has baked in of it.

    Attributes:
        point: Where it acts.
        lane: Its order and form.
        tensors: The tensors its table has, as `tensor_names` names them.
        ranks: Number of the group whose rows its V and C are; None where it has none.
        rows: Number of the group of its other rows; None where it has none.
    """

    point: SitePoint
    lane: Lane
    tensors: tuple[str, ...]
    ranks: int | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class StaticShape:
    """What shapes the steering of a step; equal for steps that one captured step can serve.

    Attributes:
        lanes: Live lanes, in the order of the tables.
        widths: Rows per token, K, of each group of lanes with equal columns; powers of two.
    """

    lanes: tuple[StaticLane, ...] = ()
    widths: tuple[int, ...] = ()


class StaticGains:
    """One step's gains [T, columns], sorted into what shapes the step and what is data."""

    def __init__(self, gains: _Gains, tables: PackedTables) -> None:
        self.tables = tables
        self.columns: list[_Columns] = []
        self._gains = gains
        self._groups: dict[bytes, int] = {}
        used: NDArray[np.bool_] = np.any(gains, axis=0)
        lanes = tuple(
            StaticLane(
                point,
                table.lane,
                tensor_names(table),
                self._group(table.rank_columns),
                self._group(table.columns),
            )
            for point, point_tables in tables.lanes.items()
            for table in point_tables
            if used[table.rank_columns].any() or used[table.columns].any()
        )
        self.shape = StaticShape(lanes, tuple(self._width(columns) for columns in self.columns))

    def places(self, group: int) -> tuple[NDArray[np.int64], _Gains]:
        """Row numbers [T, K] of a group, and their gains."""
        own = self._gains[:, None, self.columns[group]]  # [T, 1, R]
        index, values = gather_places(own, own[:, 0] != 0, self.shape.widths[group])
        return index, values[:, 0]

    def _group(self, columns: _Columns) -> int | None:
        if not len(columns):
            return None
        group = self._groups.setdefault(columns.tobytes(), len(self.columns))
        if group == len(self.columns):
            self.columns.append(columns)
        return group

    def _width(self, columns: _Columns) -> int:
        most = int(np.count_nonzero(self._gains[:, columns], axis=1).max(initial=1))
        return 1 << (most - 1).bit_length()


class StaticSteering:
    """The steering of one captured step, over buffers.

    Attributes:
        tensors: Every table it reads.
        generation: That of the tables when it was made; void once theirs is another.
    """

    def __init__(self, shape: StaticShape, num_tokens: int, tables: StaticTables) -> None:
        """Take the shape of the step and the tables, which hold the shape's lanes by now."""
        self._shape = shape
        self._num_tokens = num_tokens
        self._tables = {lane: tables.lane(lane.point, lane.lane) for lane in shape.lanes}
        self.tensors = [tensor for table in self._tables.values() for tensor in tensors_of(table)]
        self.generation = tables.generation
        self._buffers: StaticBuffers | None = None
        self._loaded: StaticGains | None = None
        self._selections: list[Selection] = []

    @property
    def fields(self) -> dict[str, Field]:
        """The arrays it needs in the buffers."""
        found = {}
        for group, width in enumerate(self._shape.widths):
            found[f"{_INDEX}{group}"] = Field((self._num_tokens, width), np.int64)
            found[f"{_VALUES}{group}"] = Field((self._num_tokens, 1, width), np.float32)
        return found

    def bind(self, buffers: StaticBuffers) -> None:
        """Take the buffers that have its `fields`."""
        self._buffers = buffers

    def load(self, gains: StaticGains) -> None:
        """Write a step's rows and gains to the host's side of the buffers."""
        assert self._buffers is not None, "load before bind"
        assert gains.shape == self._shape, "gains of another shape"
        if gains is self._loaded:
            return
        for group in range(len(self._shape.widths)):
            index, values = gains.places(group)
            self._fill(f"{_INDEX}{group}", index)
            self._fill(f"{_VALUES}{group}", values[:, None])
        self._loaded = gains

    def edits(self) -> StepEdits:
        """What the hooks do, over the buffers; to be made anew inside each run of the step.

        What selections keep between points (masks, gathered rows) is then part of the run.
        """
        selections = [self._selection(group) for group in range(len(self._shape.widths))]
        lanes: dict[SitePoint, tuple[LaneStep, ...]] = {}
        later: dict[SitePoint, tuple[LaneStep, ...]] = {}
        for shape, table in self._tables.items():
            ranks = None if shape.ranks is None else selections[shape.ranks]
            rows = None if shape.rows is None else selections[shape.rows]
            active = _acting(ranks, rows) if shape.lane.restore_norm else None
            step = LaneStep(table, ranks, rows, active)
            lanes[shape.point] = (*lanes.get(shape.point, ()), step)
            gate_point = shape.lane.gate_point
            if gate_point is not None and gate_point != shape.point:
                later[gate_point] = (*later.get(gate_point, ()), step)
        self._selections = selections
        return StepEdits((StepPart(slice(0, self._num_tokens), lanes, later),), None, {})

    def noted(self, log: GateLog) -> dict[int, Tensor]:
        """By group, where the last run of `edits` left the values of its gates."""
        values = {selection: values for selection, (_, values) in log.noted.items()}
        found = enumerate(self._selections)
        return {group: values[selection] for group, selection in found if selection in values}

    def log(self, noted: Mapping[int, Tensor]) -> GateLog | None:
        """The gates that were decided for the gains loaded; None where there are none.

        Args:
            noted: The values, where `noted` found them.
        """
        assert self._loaded is not None, "log before load"
        if not noted:
            return None
        found = {}
        for group, values in noted.items():
            index, gains = self._loaded.places(group)
            selection = Selection(torch.from_numpy(gains[:, None]), torch.from_numpy(index))
            found[selection] = (self._loaded.columns[group], values[: len(index)])
        return GateLog(found)

    def _selection(self, group: int) -> Selection:
        assert self._buffers is not None, "edits before bind"
        tensors = self._buffers.tensors
        return Selection(tensors[f"{_VALUES}{group}"], tensors[f"{_INDEX}{group}"])

    def _fill(self, name: str, rows: NDArray[np.generic]) -> None:
        assert self._buffers is not None, "load before bind"
        array = self._buffers.host[name]
        array[: len(rows)] = rows
        array[len(rows) :] = 0


def _acting(ranks: Selection | None, rows: Selection | None) -> Tensor:
    """[T] whether any row has a gain other than zero."""
    found = [s.acts.any(dim=2).flatten() for s in (ranks, rows) if s is not None]
    return found[0] if len(found) == 1 else found[0] | found[1]
