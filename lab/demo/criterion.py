"""What a demo is chosen by: a rate to raise, and what it must not cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lab.corpus import Kind

from .measures import Measured, Rate

Rates = Mapping[Measured, Rate]

_TIE: Final = 0.03
_WEIGHT: Final = 3.0


@dataclass(frozen=True, slots=True)
class Guard:
    """A rate that may get worse by `at_most`, compared with the unsteered model.

    Attributes:
        of: What is watched.
        at_most: Largest change for the worse, in [0, 1].
        is_good: Whether a higher rate is better.
    """

    of: Measured
    at_most: float
    is_good: bool

    def harm(self, plain: Rates, steered: Rates) -> float:
        """Change for the worse beyond what is allowed, which is one prompt at least."""
        rate = steered[self.of]
        change = rate.value - plain[self.of].value
        allowed = max(self.at_most, 1 / rate.n)
        # 1e-9: a change of exactly what is allowed must not count for its rounding
        return max(0.0, (-change if self.is_good else change) - allowed - 1e-9)

    def __str__(self) -> str:
        verb = "falls" if self.is_good else "rises"
        return f"{self.of} {verb} by at most {self.at_most:.2f}"


@dataclass(frozen=True, slots=True)
class Criterion:
    """The highest `wanted` rate, less excess over guards; of near ties the smallest dose."""

    wanted: Measured
    guards: tuple[Guard, ...]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of prompts it needs answers to."""
        return tuple(sorted({item.kind for item in self.measured}))

    @property
    def measured(self) -> tuple[Measured, ...]:
        """Everything it looks at."""
        return (self.wanted, *(guard.of for guard in self.guards))

    def merit(self, plain: Rates, steered: Rates) -> float:
        """The wanted rate less three times what the guards are exceeded by."""
        return steered[self.wanted].value - _WEIGHT * self.harm(plain, steered)

    def harm(self, plain: Rates, steered: Rates) -> float:
        """What the guards are exceeded by together."""
        return sum(guard.harm(plain, steered) for guard in self.guards)

    def best(self, merits: Mapping[int, float], doses: Sequence[float]) -> int:
        """The key of the chosen one."""
        bar = max(merits.values()) - _TIE
        return min((key for key in merits if merits[key] >= bar), key=lambda key: doses[key])

    def __str__(self) -> str:
        kept = "; ".join(str(guard) for guard in self.guards)
        return (
            f"highest {self.wanted}, less three times what goes beyond these: {kept}; within "
            f"{_TIE:.2f} of the best, the smallest dose"
        )
