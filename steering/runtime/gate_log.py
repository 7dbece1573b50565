"""What the token gates of one step came to; filled by hooks, read after the forward."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .selection import Selection

if TYPE_CHECKING:
    from .lane_step import LaneGains, LaneStep

__all__ = ["GateLog"]

_Columns = NDArray[np.int64]
_Tokens = NDArray[np.int64]
_Values = NDArray[np.float32]


class GateLog:
    """Gates decided in one forward: gains for lanes still to come, and values for the answer.

    An intervention acts at several layers; of its gates there, a token's largest value counts.
    """

    def __init__(self) -> None:
        self._held: dict[LaneStep, LaneGains] = {}
        self._noted: dict[Selection, tuple[_Columns, Tensor]] = {}

    def hold(self, lane: LaneStep, gains: LaneGains) -> None:
        """Keep the gains of a lane that acts later in the forward than its gates read."""
        self._held[lane] = gains

    def take(self, lane: LaneStep) -> LaneGains:
        """The gains kept for a lane, on its device."""
        return self._held.pop(lane).to(lane.table.device)

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
