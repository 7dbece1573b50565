"""One lane of one point in one step: which rows of its table act on which token, and its gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steering.operations import EditForm

from .kernel import (
    GateRows,
    add_ranks,
    add_total,
    diagonal,
    gate_values,
    low_rank,
    restore_norm,
    turn,
)
from .selection import Selection
from .tables import LaneTable

_Columns = NDArray[np.int64]
_Tokens = NDArray[np.int64]
_Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LaneStep:
    """A lane's table with this step's selections.

    Attributes:
        table: The lane's table.
        ranks: Gains of the rows of V and C, or None where the table has none.
        rows: Gains of the other rows, or None where the table has none.
        active: [T] tokens whose norm is restored, on the lane's device; None where none is.

    Until `decide` the gains are those before gates, on the device where gates are decided: the
    lane's own without gates.
    """

    table: LaneTable
    ranks: Selection | None
    rows: Selection | None
    active: Tensor | None

    @property
    def has_gates(self) -> bool:
        """Whether its tokens have gates."""
        return self.table.lane.gate_point is not None

    def decide(self, hidden: Tensor, log: GateLog) -> LaneStep:
        """The same lane with its gains after the gates, which read hidden [T, d] float32."""
        table = self.table
        return LaneStep(
            table,
            _decided(self.ranks, table.rank_gates, table.rank_columns, hidden, log),
            _decided(self.rows, table.gates, table.columns, hidden, log),
            self.active,
        )

    def gains_to(self, device: torch.device) -> LaneStep:
        """The same lane with its gains on another device; does not wait for either."""
        ranks = None if self.ranks is None else self.ranks.to(device)
        rows = None if self.rows is None else self.rows.to(device)
        return LaneStep(self.table, ranks, rows, self.active)

    def shortcut(self) -> Callable[[Tensor], Tensor] | None:
        """What edits activations [1, T, d] of any float dtype as this lane does, in few operations.

        For the commonest lanes while one request decodes, when a step is so short that every
        operation counts; None for all others, and where the gains are not final.
        """
        table, ranks = self.table, self.ranks
        if table.lane.form is not EditForm.LOW_RANK or self.has_gates or self.active is not None:
            return None
        if ranks is None or table.rows is None:
            shift = table.shift
            total = None if self.rows is None or shift is None else self.rows.sums(shift)
            return None if total is None else partial(add_total, total)
        found = table.rows
        write = ranks.scaled_rows(found.write)
        is_plain = found.minus_offset is None and found.linear is None and found.clip is None
        if write is None or not is_plain or self.rows is not None:
            return None
        return partial(add_ranks, ranks.rows(found.read)[0].mT, write[0])

    def apply(self, hidden: Tensor) -> Tensor:
        """Edit hidden [T, d] float32; returns a new tensor. A lane with gates is decided first."""
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
        if self.active is None:
            return result
        # A token whose gates are all closed keeps every bit, which rescaling would not promise.
        active = self.active & self._acts() if self.has_gates else self.active
        return restore_norm(hidden, result, active)

    def _acts(self) -> Tensor:
        """[T] whether any row acts on the token."""
        found = [s.acts.any(dim=2).flatten() for s in (self.ranks, self.rows) if s is not None]
        return torch.stack(found).any(dim=0)


class GateLog:
    """The token gates decided in one forward; filled by hooks, read after the forward.

    It keeps the decided lanes that act later in the forward, and the gates' values for the answer.
    An intervention acts at several layers; of its gates there, a token's largest value counts.
    """

    def __init__(self, noted: Mapping[Selection, tuple[_Columns, Tensor]] | None = None) -> None:
        """Start with what was noted elsewhere, or empty."""
        self._decided: dict[LaneStep, LaneStep] = {}
        self._noted: dict[Selection, tuple[_Columns, Tensor]] = dict(noted or {})

    @property
    def noted(self) -> Mapping[Selection, tuple[_Columns, Tensor]]:
        """Per selection the gain column of each row, and values shaped as its gains."""
        return self._noted

    def decide_ahead(self, lane: LaneStep, hidden: Tensor) -> None:
        """Decide a lane that acts later in the forward than its gates read; `take` gives it."""
        self._decided[lane] = lane.decide(hidden, self)

    def take(self, lane: LaneStep) -> LaneStep:
        """What became of a lane that was decided ahead, its gains on the lane's device."""
        return self._decided.pop(lane).gains_to(lane.table.device)

    def note(self, selection: Selection, columns: _Columns, values: Tensor) -> None:
        """Remember values shaped as the selection's gains; stays on the device.

        `columns` has the gain column of each row that the selection selects from.
        """
        if selection in self._noted:
            values = self._noted[selection][1].maximum(values)
        self._noted[selection] = (columns, values)

    def values(self, num_tokens: int) -> tuple[_Columns, _Values]:
        """Gain columns [n] that have gates, ascending, and the value of each on the edited tokens.

        The values are [num_tokens, n], zero where a gate was not asked. Waits for the device.
        """
        found = [
            _by_column(selection, columns, values.cpu().numpy())
            for selection, (columns, values) in self._noted.items()
        ]
        columns = np.unique(np.concatenate([own for _, own, _ in found]))
        result = np.zeros((num_tokens, len(columns)), dtype=np.float32)
        for tokens, own, values in found:
            cells = tokens, np.searchsorted(columns, own)
            result[cells] = np.maximum(result[cells], values)
        return columns, result


def _decided(
    selection: Selection | None,
    gates: GateRows | None,
    columns: _Columns,
    hidden: Tensor,
    log: GateLog,
) -> Selection | None:
    if selection is None or gates is None:
        return selection
    values = gate_values(hidden, gates, selection)
    log.note(selection, columns, values)
    # `where`, because a value means nothing, NaN included, where the row does not act.
    return selection.with_gains(torch.where(selection.acts, selection.gains * values, 0.0))


def _by_column(
    selection: Selection, columns: _Columns, values: _Values
) -> tuple[_Tokens, _Columns, _Values]:
    """Token, column and value wherever a row acts; of a column's rows all have one value."""
    acts = selection.acts.cpu().numpy()  # [B, b, K]
    index = None if selection.index is None else selection.index.cpu().numpy()
    of_place = columns[None] if index is None else columns[index]  # [B, K]
    blocks, tokens, places = np.nonzero(acts)
    rows = selection.first + blocks * acts.shape[1] + tokens
    return rows, of_place[blocks, places], values[acts]
