"""Edits of all live requests, packed by point and lane on the device that computes the point."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steering.documents import Measure, Opens
from steering.operations import Edit, EditForm
from steering.plan import Lane, PlannedEdit, PlannedGate, PlannedIntervention, SteeringPlan
from steering.sites import SitePoint

from .kernel import GateRows, LowRankRows

_Columns = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LaneTable:
    """The rows of one lane at one point; a column is an intervention's place in the gain matrix.

    Attributes:
        lane: Order and form.
        device: Device that holds its tensors.
        rows: V, C and phi (LOW_RANK), or None.
        rank_columns: Column of each row of `rows`.
        shift: b [S, d] (LOW_RANK, DIAGONAL), or None.
        scale: delta [S, d] (DIAGONAL), or None.
        read: Orthonormal pairs [2 S, d] (TURN), or None.
        target: [S, 2] (TURN), or None.
        columns: Column of each row of `shift`, `scale` and `target`.
        rank_gates: Gates of `rows`, or None; on the device of the lane's `gate_point`.
        gates: Gates of `shift`, `scale` and `target`, or None; there too.
    """

    lane: Lane
    device: torch.device
    rows: LowRankRows | None
    rank_columns: _Columns
    shift: Tensor | None
    scale: Tensor | None
    read: Tensor | None
    target: Tensor | None
    columns: _Columns
    rank_gates: GateRows | None
    gates: GateRows | None

    @property
    def gate_device(self) -> torch.device:
        """Device on which its gates are decided."""
        found = self.gates or self.rank_gates
        return self.device if found is None else found.read.device


@dataclass(frozen=True, eq=False)
class PackedTables:
    """Tables of a set of interventions.

    Attributes:
        keys: The interventions' keys; position in it is the column number.
        lanes: Tables by point, in order of application.
    """

    keys: tuple[bytes, ...]
    lanes: Mapping[SitePoint, tuple[LaneTable, ...]]

    @cached_property
    def devices(self) -> frozenset[torch.device]:
        """Every device that holds a table or its gates."""
        tables = [table for tables in self.lanes.values() for table in tables]
        return frozenset(device for t in tables for device in (t.device, t.gate_device))

    @cached_property
    def _column_by_key(self) -> dict[bytes, int]:
        return {key: column for column, key in enumerate(self.keys)}

    def holds(self, keys: Collection[bytes]) -> bool:
        """Whether it has a column for each of `keys`."""
        return all(key in self._column_by_key for key in keys)

    def columns_of(self, plan: SteeringPlan) -> _Columns:
        """The columns of a plan's interventions, in its order."""
        return np.array([self._column_by_key[item.key] for item in plan.interventions])


def pack(
    interventions: Sequence[PlannedIntervention], devices: Mapping[SitePoint, torch.device]
) -> PackedTables:
    """Pack interventions with distinct keys; tensors go to the device of their point."""
    members: dict[tuple[SitePoint, Lane], list[tuple[int, PlannedEdit]]] = {}
    for column, item in enumerate(interventions):
        for planned in item.edits:
            members.setdefault((planned.point, planned.lane), []).append((column, planned))
    lanes: dict[SitePoint, list[LaneTable]] = {}
    for point, lane in sorted(members, key=lambda member: (member[0], member[1].stage)):
        table = _pack_lane(point, lane, members[point, lane], devices)
        lanes.setdefault(point, []).append(table)
    return PackedTables(
        tuple(item.key for item in interventions),
        {point: tuple(tables) for point, tables in lanes.items()},
    )


def _pack_lane(
    point: SitePoint,
    lane: Lane,
    members: Sequence[tuple[int, PlannedEdit]],
    devices: Mapping[SitePoint, torch.device],
) -> LaneTable:
    device, gate_device = devices[point], devices[lane.gate_point or point]
    is_low_rank, is_turn = lane.form is EditForm.LOW_RANK, lane.form is EditForm.TURN
    with_rank = [m for m in members if m[1].edit.rank and is_low_rank]
    with_shift = [m for m in members if m[1].edit.shift is not None or not is_low_rank]
    ranked = [(column, planned.edit) for column, planned in with_rank]
    plain = [(column, planned.edit) for column, planned in with_shift]
    return LaneTable(
        lane=lane,
        device=device,
        rows=_pack_rows([edit for _, edit in ranked], device) if ranked else None,
        rank_columns=np.repeat(
            np.array([column for column, _ in ranked], dtype=np.int64),
            [edit.rank for _, edit in ranked],
        ),
        shift=_stack([edit.shift for _, edit in plain], device),
        scale=_stack([edit.scale for _, edit in plain], device),
        read=_cat([edit.read for _, edit in plain], device) if is_turn else None,
        target=_stack([edit.target for _, edit in plain], device),
        columns=np.array([column for column, _ in plain], dtype=np.int64),
        rank_gates=_pack_gates(
            [planned.gate for _, planned in with_rank for _ in range(planned.edit.rank)],
            gate_device,
        ),
        gates=_pack_gates([planned.gate for _, planned in with_shift], gate_device),
    )


def _pack_gates(gates: Sequence[PlannedGate | None], device: torch.device) -> GateRows | None:
    present = [planned for planned in gates if planned is not None]
    assert len(present) in (0, len(gates)), "a lane has gates on all of its rows or on none"
    if not present:
        return None
    asked = [planned.gate for planned in present]

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).to(device)

    def flags(measure: Measure) -> Tensor | None:
        found = [gate.measure is measure for gate in asked]
        return torch.tensor(found).to(device) if any(found) else None

    steepness = [planned.steepness or 0.0 for planned in present]
    return GateRows(
        read=torch.stack([planned.vector for planned in present]).to(device),
        bias=column([planned.bias for planned in present]),
        threshold=column([gate.threshold for gate in asked]),
        sign=column([1.0 if gate.opens is Opens.ABOVE else -1.0 for gate in asked]),
        steepness=column(steepness) if any(steepness) else None,
        is_cosine=flags(Measure.COSINE),
        is_probability=flags(Measure.PROBABILITY),
    )


def _pack_rows(edits: Sequence[Edit], device: torch.device) -> LowRankRows:
    """Rows of V and C; terms that no edit of the lane has are None, so the kernel leaves them out.

    Most lanes need neither offset nor phi, and each term left out saves launches at every point.
    """
    responses = [edit.response for edit in edits if edit.response is not None]
    is_scaled = any(bool((response.linear != 1).any()) for response in responses)
    is_clipped = any(bool(response.clip.any()) for response in responses)
    offsets = [edit.offset for edit in edits if edit.offset is not None]
    is_offset = any(bool(offset.any()) for offset in offsets)
    return LowRankRows(
        read=_cat([edit.read for edit in edits], device),
        minus_offset=-_cat(offsets, device) if is_offset else None,
        write=_cat([edit.write for edit in edits], device),
        linear=_cat([response.linear for response in responses], device) if is_scaled else None,
        clip=_cat([response.clip for response in responses], device) if is_clipped else None,
        low=_cat([response.low for response in responses], device),
        high=_cat([response.high for response in responses], device),
    )


def _stack(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present).to(device) if present else None


def _cat(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
    return torch.cat([tensor for tensor in tensors if tensor is not None]).to(device)
