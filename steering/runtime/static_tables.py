"""Tables at addresses that never change, for captured steps to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from steering.plan import Lane
from steering.sites import SitePoint

from .kernel import GateRows, LowRankRows
from .tables import LaneTable, PackedTables

_LEAST_ROWS: Final = 16

_Place = tuple[SitePoint, Lane, str]


class StaticTables:
    """A copy of the packed tables that is written in place when they are packed anew.

    A step that was captured reads rows by number at fixed addresses, so a profile that came later
    acts in it once its rows are here. Every tensor has room for twice the rows it was made for;
    where more come it is made anew, and what was captured before is void: `generation` tells.

    Attributes:
        generation: Grows whenever a tensor was replaced.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._held: dict[_Place, Tensor] = {}
        self._lanes: dict[tuple[SitePoint, Lane], LaneTable] = {}
        self._adopted: PackedTables | None = None

    def adopt(self, tables: PackedTables) -> None:
        """Hold the rows of `tables`, and of no others; does not wait for the device."""
        if tables is self._adopted:
            return
        generation = self.generation
        self._lanes = {
            (point, table.lane): map_tensors(table, partial(self._store, point, table.lane))
            for point, point_tables in tables.lanes.items()
            for table in point_tables
        }
        self._adopted = tables
        if self.generation != generation:  # what read the lanes that are gone is void as well
            live = self._lanes.keys()
            self._held = {p: held for p, held in self._held.items() if (p[0], p[1]) in live}

    def lane(self, point: SitePoint, lane: Lane) -> LaneTable:
        """A lane's table with room for more rows than it has; what stands there means nothing."""
        return self._lanes[point, lane]

    @property
    def num_bytes(self) -> int:
        """Memory of all of it."""
        return sum(tensor.nbytes for tensor in self._held.values())

    def _store(self, point: SitePoint, lane: Lane, name: str, rows: Tensor) -> Tensor:
        place = (point, lane, name)
        held = self._held.get(place)
        if held is None or len(held) < len(rows):
            self.generation += held is not None
            room = max(2 * len(rows), _LEAST_ROWS)
            held = torch.zeros((room, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
            self._held[place] = held
        held[: len(rows)].copy_(rows)
        return held


def map_tensors(table: LaneTable, change: Callable[[str, Tensor], Tensor]) -> LaneTable:
    """The table with `change(name, tensor)` in place of each tensor; None stays None.

    Names are those of the attributes, with the group first where there is one: `rows.read`.
    """
    mapped: LaneTable = _mapped(table, "", change)
    return mapped


def tensor_names(table: LaneTable) -> tuple[str, ...]:
    """The names of the tensors that a table has, as `map_tensors` gives them."""
    return tuple(name for name, _ in _named_tensors(table))


def tensors_of(table: LaneTable) -> tuple[Tensor, ...]:
    """All tensors of a table."""
    return tuple(tensor for _, tensor in _named_tensors(table))


def _named_tensors(table: LaneTable) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []

    def note(name: str, tensor: Tensor) -> Tensor:
        found.append((name, tensor))
        return tensor

    map_tensors(table, note)
    return found


def _mapped(value: Any, path: str, change: Callable[[str, Tensor], Tensor]) -> Any:
    changes: dict[str, Any] = {}
    for field in fields(value):
        inner, name = getattr(value, field.name), path + field.name
        if isinstance(inner, Tensor):
            changes[field.name] = change(name, inner)
        elif isinstance(inner, LowRankRows | GateRows):
            changes[field.name] = _mapped(inner, f"{name}.", change)
    return replace(value, **changes)
