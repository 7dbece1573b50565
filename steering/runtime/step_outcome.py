"""Which tokens a step's interventions acted on."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from steering.plan import SteeringPlan

from .gate_log import GateLog
from .tables import PackedTables

__all__ = ["StepOutcome"]

_Mask = NDArray[np.bool_]
_Gains = NDArray[np.float32]

_HALF: Final = 0.5


class StepOutcome:
    """Tokens of one step by row of the batch; the first question about gates waits for the device.

    To be asked after the forward.
    """

    def __init__(
        self,
        gains: _Gains,
        tables: PackedTables,
        log: GateLog | None = None,
        edited: NDArray[np.int64] | None = None,
    ) -> None:
        """Take what a step was prepared from.

        Args:
            gains: [T, columns] before the gates of tokens.
            tables: Whose columns these are.
            log: Filled by the forward; None where no token has a gate.
            edited: Rows of the batch that the log's rows are; None means all of them.
        """
        self._gains = gains
        self._tables = tables
        self._log = log
        self._edited = edited

    @cached_property
    def steered(self) -> _Mask:
        """[T] whether some intervention acted with a gain other than zero."""
        acts = self._gains != 0
        columns, values = self._values
        acts[:, columns] &= values != 0
        steered: _Mask = acts.any(axis=1)
        return steered

    def opened(self, plan: SteeringPlan, start: int, stop: int) -> tuple[_Mask | None, ...]:
        """Per intervention of a plan on rows [start, stop): where it was due and its gate open.

        None for interventions whose tokens have no gates. A soft gate counts as open where it is
        more than half open, which is beyond its threshold.
        """
        columns = self._tables.columns_of(plan)
        return tuple(
            self._opened(int(column), slice(start, stop)) if item.has_token_gate else None
            for item, column in zip(plan.interventions, columns, strict=True)
        )

    def _opened(self, column: int, rows: slice) -> _Mask:
        due: _Mask = self._gains[rows, column] != 0
        columns, values = self._values
        place = int(np.searchsorted(columns, column))
        if place == len(columns) or columns[place] != column:
            return np.zeros_like(due)  # acted on no token of the step
        return due & (values[rows, place] > _HALF)

    @cached_property
    def _values(self) -> tuple[NDArray[np.int64], _Gains]:
        """Columns [n] with gates, ascending, and their values on the rows of the batch, [T, n]."""
        if self._log is None:
            return np.zeros(0, dtype=np.int64), np.zeros((len(self._gains), 0), dtype=np.float32)
        if self._edited is None:
            return self._log.values(len(self._gains))
        columns, values = self._log.values(len(self._edited))
        spread = np.zeros((len(self._gains), len(columns)), dtype=np.float32)
        spread[self._edited] = values
        return columns, spread
