"""Tables of what was measured: medians with quartiles, and ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .burst import Burst

_HEADER = (
    "server",
    "first token, ms",
    "per token, ms",
    "tokens/s",
    "tokens per processor second",
    "{first} over it",
    "by processor time",
)


@dataclass(frozen=True)
class Spread:
    """The quartiles of some values."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value, by linear interpolation between them."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def show(self, digits: int) -> str:
        """`median (low to high)` with so many decimals."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def table(bursts: Mapping[str, Sequence[Burst]]) -> str:
    """A row for each server, of its bursts round by round; ratios are to the first server.

    Times are of all answers of all rounds, rates of rounds, and a ratio is that of the same round,
    so that what the machine did otherwise in it meets both sides.
    """
    first = next(iter(bursts))
    rows = [[cell.format(first=first) for cell in _HEADER], ["---"] * len(_HEADER)]
    rows += [_row(name, mine, bursts[first]) for name, mine in bursts.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(name: str, mine: Sequence[Burst], first: Sequence[Burst]) -> list[str]:
    answers = [answer for burst in mine for answer in burst.answers]
    return [
        name,
        Spread.of([1e3 * answer.first_seconds for answer in answers]).show(0),
        Spread.of([1e3 * answer.seconds_per_token for answer in answers]).show(1),
        Spread.of([burst.rate for burst in mine]).show(1),
        _over([burst.cpu_rate for burst in mine], lambda rates: rates, digits=1),
        _over([b.rate for b in mine], lambda rates: _ratios([b.rate for b in first], rates)),
        _over(
            [b.cpu_rate for b in mine], lambda rates: _ratios([b.cpu_rate for b in first], rates)
        ),
    ]


def _ratios(first: Sequence[float | None], rates: Sequence[float]) -> list[float]:
    return [ours / rate for ours, rate in zip(first, rates, strict=True) if ours is not None]


def _over(
    rates: Sequence[float | None],
    derive: Callable[[list[float]], list[float]],
    digits: int = 2,
) -> str:
    known = [rate for rate in rates if rate is not None]
    derived = derive(known) if len(known) == len(rates) else []
    return Spread.of(derived).show(digits) if derived else ""
