"""Record of the engine's steps: their number and duration, and whether they keep failing."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from .outputs import StepMode, StepSeconds

MAX_FAILED_STEPS: Final = 3
"""Number of failures within a minute that end the engine; a supervisor then starts a new one."""

_WINDOW_SECONDS: Final = 60.0
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class StepLog:
    """Written by the engine's thread, read from any.

    Args:
        clock: Gives the time in seconds; monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._by_mode = dict.fromkeys(StepMode, 0)
        self._total = 0.0
        self._failed_at: deque[float] = deque(maxlen=MAX_FAILED_STEPS)
        self._beat_at = clock()

    def beat(self) -> None:
        """Note progress of the engine's thread: a site of a layer, a tile of attention, a command.

        Costs a tenth of a microsecond, asks no device and records nothing, so it may stand in a
        forward pass. On an accelerator a beat within the forward says that work was enqueued, not
        that it was done; the step's read-back is what waits, and no beat comes while it does. So
        there silence is bounded below by the device's time for a step, here by that of a tile.
        """
        self._beat_at = self._clock()

    def completed(self, seconds: float, mode: StepMode = StepMode.EAGER) -> None:
        """Record a step that completed, in `seconds`, and how it ran."""
        self._by_mode[mode] += 1
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self._total += seconds
        self.beat()

    def failed(self) -> None:
        """Record a step that failed as a whole."""
        self.beat()
        self._failed_at.append(self._beat_at)

    @property
    def keeps_failing(self) -> bool:
        """Whether the last `MAX_FAILED_STEPS` failures lie within a minute."""
        failed = self._failed_at
        return len(failed) == MAX_FAILED_STEPS and failed[-1] - failed[0] <= _WINDOW_SECONDS

    @property
    def seconds_silent(self) -> float:
        """Time since the last beat; means nothing while idle."""
        return self._clock() - self._beat_at

    @property
    def by_mode(self) -> Mapping[StepMode, int]:
        """Number of steps that completed, by how they ran."""
        return dict(self._by_mode)

    @property
    def step_seconds(self) -> StepSeconds:
        """Durations of the steps that completed."""
        return StepSeconds(_BOUNDS, tuple(self._counts), self._total)
