"""What the command `coxswain bake` is asked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from steering.weights.errors import WeightEditError

_LAYERS: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_DTYPES: Final = ("bfloat16", "float16", "float32")


class BakeOperation(StrEnum):
    """What is done with a direction; s is the unit direction, W a write matrix."""

    RANK_ONE = "rank_one"  # W + alpha s mean_row(W)^T, as published (ROSI)
    RANK_ONE_CALIBRATED = "rank_one_calibrated"  # alpha with the sign of the mean output
    AMPLIFY = "amplify"  # (I + alpha s s^T) W
    ABLATE = "ablate"  # (I - alpha s s^T) W


@dataclass(frozen=True, slots=True)
class BakeOptions:
    """One run; either `profile`, or `direction` with `operation`.

    Attributes:
        model: Folder of the checkpoint.
        out: Folder to write; None for a report alone.
        profile: `name`, `name@version` or an alias.
        direction: File of a direction, as Coxswain writes it.
        operation: What is done with the direction.
        alpha: Its strength.
        relative: |W' - W| / |W| at every point instead, from which alpha follows.
        layers: Where the direction is used; None means everywhere.
        embeddings: Whether the token embedding is edited as well.
        untie: Whether a tied unembedding may become a matrix of its own.
        dtype: Of the weights written; None keeps each as it is.
        prompts: Text file with a prompt a line for measuring outputs; None for built-in text.
        force: Whether a checkpoint at `out` may be replaced.

    Raises:
        WeightEditError: The options contradict each other, or one is out of its range.
    """

    model: Path
    out: Path | None = None
    profile: str | None = None
    direction: Path | None = None
    operation: BakeOperation | None = None
    alpha: float | None = None
    relative: float | None = None
    layers: tuple[int, ...] | None = None
    embeddings: bool = False
    untie: bool = False
    dtype: str | None = None
    prompts: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if (self.profile is None) == (self.direction is None):
            raise WeightEditError("give either a profile or a direction", param="profile")
        if self.profile is not None:
            self._refuse_beside_profile()
        elif self.operation is None:
            raise WeightEditError(
                f"a direction has no operation; give one of {', '.join(BakeOperation)}",
                param="operation",
            )
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise WeightEditError(
                f"dtype is {self.dtype!r}; expected one of {', '.join(_DTYPES)}", param="dtype"
            )
        if self.alpha is not None and self.relative is not None:
            raise WeightEditError("alpha and relative are both given; give one", param="relative")
        if self.relative is not None and not 0 < self.relative < math.inf:
            raise WeightEditError(
                f"relative is {self.relative:g}; expected a positive share, like 0.01",
                param="relative",
            )
        if self.alpha is not None and not math.isfinite(self.alpha):
            raise WeightEditError("alpha is not finite; expected a number", param="alpha")
        if self.out is not None and not self.has_strength:
            raise WeightEditError(
                "neither alpha nor relative is given; choose one by the report of --dry-run",
                param="alpha",
            )

    @property
    def has_strength(self) -> bool:
        """Whether strengths are known: those of a profile, `alpha` or `relative`."""
        return not (self.profile is None and self.alpha is None and self.relative is None)

    def _refuse_beside_profile(self) -> None:
        own: dict[str, Any] = {
            "operation": self.operation,
            "alpha": self.alpha,
            "relative": self.relative,
            "layers": self.layers,
            "embeddings": self.embeddings or None,
        }
        for name, value in own.items():
            if value is not None:
                raise WeightEditError(
                    f"{name} is given beside a profile, whose interventions say it already; "
                    "change the profile, or bake a direction",
                    param=name,
                )


def parse_operation(text: str) -> BakeOperation:
    """Read an operation's name.

    Raises:
        WeightEditError: No operation has that name.
    """
    if text not in list(BakeOperation):
        raise WeightEditError(
            f"operation is {text!r}; expected one of {', '.join(BakeOperation)}", param="operation"
        )
    return BakeOperation(text)


def parse_layers(text: str) -> tuple[int, ...]:
    """Read `0,3-5` as (0, 3, 4, 5).

    Raises:
        WeightEditError: Anything else.
    """
    layers: set[int] = set()
    for part in text.split(","):
        found = _LAYERS.fullmatch(part)
        chosen = found and range(int(found[1]), int(found[2] or found[1]) + 1)
        if not chosen:
            raise WeightEditError(
                f"layers is {text!r}; expected numbers and ranges, like 0,3-5", param="layers"
            )
        layers.update(chosen)
    return tuple(sorted(layers))
