"""The gates of one request: the sums they have read of its prompt, and their decisions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from steering.plan import PlannedGate


@dataclass(slots=True)
class _Reading:
    """Activations of the prompt, summed.

    Attributes:
        stop: Position after the last one read.
        total: Their sum, [d].
        count: Number of activations in the sum.
    """

    stop: int = 0
    total: NDArray[np.float64] | float = 0.0
    count: int = 0


class GateLatch:
    """Decides every gate of a request at once, on the last token of its prompt, and for good.

    Until then no intervention behind one of them acts; the last token is computed a second time
    when they are decided, because it decides the first token of the answer. What is decided
    outlives preemption.

    Args:
        gates: The gates of the request's plan, each once.
        num_prompt_tokens: Tokens before the point where the prompt ends for steering, at least 1.
    """

    def __init__(self, gates: Sequence[PlannedGate], num_prompt_tokens: int) -> None:
        self._gates = gates
        self._num_prompt_tokens = num_prompt_tokens
        self._readings: dict[bytes, _Reading] = {}
        self._open: set[bytes] = set()
        self.scores: dict[bytes, float] = {}

    @property
    def is_decided(self) -> bool:
        """Whether the gates have been decided."""
        return bool(self.scores)

    @property
    def open_gates(self) -> Set[bytes]:
        """Keys of the gates that are open; one object, filled when they are decided."""
        return self._open

    def reads(self, start: int, stop: int) -> Iterator[tuple[PlannedGate, int, int]]:
        """The reads the gates need in [start, stop): each gate with a half-open window."""
        if self.is_decided:
            return
        last = self._num_prompt_tokens - 1
        for gate in self._gates:
            first = max(start, 0 if gate.gate.reads_whole_prompt else last)
            end = min(stop, last + 1)
            if first < end:
                yield gate, first, end

    def note(
        self, gate: PlannedGate, position: int, count: int, total: NDArray[np.float64]
    ) -> None:
        """Add the sum [d] of `count` activations from `position` on.

        A request that was preempted within its prompt begins again.
        """
        reading = self._readings.setdefault(gate.key, _Reading())
        if position != reading.stop or not gate.gate.reads_whole_prompt:
            reading = self._readings[gate.key] = _Reading()
        reading.stop = position + count
        reading.count += count
        reading.total = reading.total + total

    def decide(self) -> bool:
        """Decide the gates; False where a score is NaN or infinite, and nothing is decided."""
        scores = {gate.key: gate.score(self._mean(gate)) for gate in self._gates}
        if not all(math.isfinite(score) for score in scores.values()):
            return False
        self.scores = scores
        self._open.update(gate.key for gate in self._gates if gate.is_open(scores[gate.key]))
        return True

    def _mean(self, gate: PlannedGate) -> NDArray[np.float64]:
        reading = self._readings[gate.key]
        expected = self._num_prompt_tokens if gate.gate.reads_whole_prompt else 1
        assert reading.count == expected, "a gate has not read all of its prompt"
        return np.asarray(reading.total / reading.count)
