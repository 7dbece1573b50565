"""Numbers that an option of a fitter may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from steering.errors import InvalidFieldError

__all__ = ["POSITIVE", "SHARE", "WITHIN_ONE", "NumberRange"]


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Numbers from `low` to `high`; where it `is_open`, neither of the two."""

    low: float
    high: float = math.inf
    is_open: bool = False

    def check(self, value: float, param: str) -> None:
        """Check a number.

        Raises:
            InvalidFieldError: It lies outside; `param` names the field.
        """
        fits = self.low <= value <= self.high
        if self.is_open:
            fits = self.low < value < self.high
        if not fits:
            raise InvalidFieldError(f"{param} is {value:g}; expected a number {self}", param=param)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.is_open else 'of at least'} {self.low:g}"
        joined = "between {:g} and {:g}" if self.is_open else "from {:g} to {:g}"
        return joined.format(self.low, self.high)


POSITIVE: Final = NumberRange(0.0, is_open=True)
SHARE: Final = NumberRange(0.0, 1.0, is_open=True)
WITHIN_ONE: Final = NumberRange(0.0, 1.0)
