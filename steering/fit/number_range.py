"""Numbers that an option of a fitter may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from steering.errors import InvalidFieldError


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Numbers from `low` to `high`, which may be left out themselves."""

    low: float
    high: float = math.inf
    has_low: bool = True
    has_high: bool = True

    def check(self, value: float, param: str) -> None:
        """Check a number.

        Raises:
            InvalidFieldError: It lies outside; `param` names the field.
        """
        is_end = (value == self.low and not self.has_low) or (
            value == self.high and not self.has_high
        )
        if is_end or not self.low <= value <= self.high:
            raise InvalidFieldError(f"{param} is {value:g}; expected a number {self}", param=param)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'of at least' if self.has_low else 'above'} {self.low:g}"
        joined = "from {:g} to {:g}" if self.has_low else "between {:g} and {:g}"
        return joined.format(self.low, self.high)


POSITIVE: Final = NumberRange(0.0, has_low=False, has_high=False)
SHARE: Final = NumberRange(0.0, 1.0, has_low=False, has_high=False)
WITHIN_ONE: Final = NumberRange(0.0, 1.0)
