"""Reading activations during a step: monitors (a number per token) and captures (whole rows)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .plan import PlannedMonitor
from .sites import SitePoint

__all__ = ["CaptureRead", "MonitorRead", "Readouts"]


@dataclass(frozen=True, eq=False)
class MonitorRead:
    """One monitor on the rows [start, stop) of the batch.

    Attributes:
        request_id: Handed back with the scores, like `position`.
        monitor: What is read.
        rows: Half-open range of batch rows, not empty.
        position: Absolute position of the first of them in its request.
    """

    request_id: str
    monitor: PlannedMonitor
    rows: tuple[int, int]
    position: int


@dataclass(frozen=True, eq=False)
class CaptureRead:
    """Whole activations of the rows [start, stop) of the batch at one point; as `MonitorRead`."""

    request_id: str
    point: SitePoint
    rows: tuple[int, int]
    position: int


class Readouts:
    """The reads of one step and what they found; filled by hooks, collected after the forward.

    Reads see the activation before any edit at their point.
    """

    def __init__(self, monitors: Sequence[MonitorRead], captures: Sequence[CaptureRead]) -> None:
        self._monitors: dict[SitePoint, list[MonitorRead]] = {}
        self._captures: dict[SitePoint, list[CaptureRead]] = {}
        for read in monitors:
            self._monitors.setdefault(read.monitor.point, []).append(read)
        for capture in captures:
            self._captures.setdefault(capture.point, []).append(capture)
        self._scores: list[tuple[MonitorRead, Tensor]] = []
        self._rows: list[tuple[CaptureRead, Tensor]] = []

    @property
    def points(self) -> frozenset[SitePoint]:
        """Where something is read."""
        return frozenset(self._monitors) | frozenset(self._captures)

    def read(self, point: SitePoint, hidden: Tensor) -> None:
        """Take what is wanted of hidden [T, d]; stays on the device."""
        for read in self._monitors.get(point, ()):
            rows = hidden[slice(*read.rows)].to(torch.float32)
            vector = read.monitor.vector.to(hidden.device, non_blocking=True)
            self._scores.append((read, rows @ vector + read.monitor.bias))
        for capture in self._captures.get(point, ()):
            self._rows.append((capture, hidden[slice(*capture.rows)].to(torch.float32, copy=True)))

    def scores(self) -> list[tuple[MonitorRead, list[float]]]:
        """Each monitor read with its scores, one per token; synchronises with the device."""
        return [(read, scores.tolist()) for read, scores in self._scores]

    def rows(self) -> list[tuple[CaptureRead, Tensor]]:
        """Each capture with its rows [n, d], float32 on the CPU; synchronises with the device."""
        return [(capture, rows.cpu()) for capture, rows in self._rows]
