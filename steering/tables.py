"""Edits of all live requests, packed by point and lane on the device that computes the point."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .edit import Edit, EditForm
from .kernel import LowRankRows
from .plan import Lane, PlannedEdit, PlannedIntervention, SteeringPlan
from .sites import SitePoint

__all__ = ["LaneTable", "PackedTables", "pack"]

_Columns = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LaneTable:
    """The rows of one lane at one point; a column is an intervention's place in the gain matrix.

    Attributes:
        lane: Order and form.
        device: Where its tensors are.
        rows: V, C and phi (LOW_RANK), or None.
        rank_columns: Column of each row of `rows`.
        shift: b [S, d] (LOW_RANK, DIAGONAL), or None.
        scale: delta [S, d] (DIAGONAL), or None.
        read: Orthonormal pairs [2 S, d] (TURN), or None.
        target: [S, 2] (TURN), or None.
        columns: Column of each row of `shift`, `scale` and `target`.
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
        """Every device that holds a table."""
        return frozenset(table.device for tables in self.lanes.values() for table in tables)

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
    for point, lane in sorted(members):
        table = _pack_lane(lane, members[point, lane], devices[point])
        lanes.setdefault(point, []).append(table)
    return PackedTables(
        tuple(item.key for item in interventions),
        {point: tuple(tables) for point, tables in lanes.items()},
    )


def _pack_lane(
    lane: Lane, members: Sequence[tuple[int, PlannedEdit]], device: torch.device
) -> LaneTable:
    edits = [(column, planned.edit) for column, planned in members]
    is_low_rank, is_turn = lane.form is EditForm.LOW_RANK, lane.form is EditForm.TURN
    ranked = [(column, edit) for column, edit in edits if edit.rank and is_low_rank]
    plain = [(column, edit) for column, edit in edits if edit.shift is not None or not is_low_rank]
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
    )


def _pack_rows(edits: Sequence[Edit], device: torch.device) -> LowRankRows:
    responses = [edit.response for edit in edits if edit.response is not None]
    is_scaled = any(bool((response.linear != 1).any()) for response in responses)
    is_clipped = any(bool(response.clip.any()) for response in responses)
    return LowRankRows(
        read=_cat([edit.read for edit in edits], device),
        minus_offset=-_cat([edit.offset for edit in edits], device),
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
