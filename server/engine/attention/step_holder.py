"""Where the layers of one device find the step that runs now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["StepHolder"]

_Step = TypeVar("_Step")


class StepHolder(Generic[_Step]):
    """One device's current step; written between forward passes, read by every layer in one.

    Attributes:
        beat: Called after every piece of a layer's attention that may take long.
    """

    def __init__(self) -> None:
        self._step: _Step | None = None
        self.beat: Callable[[], None] = _ignore

    @property
    def step(self) -> _Step:
        """The step that runs now."""
        assert self._step is not None, "the model ran before PagedAttention.begin_step"
        return self._step

    @step.setter
    def step(self, step: _Step) -> None:
        self._step = step


def _ignore() -> None:
    pass
