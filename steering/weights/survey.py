"""How large a weight is, and how large the change asked of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from steering.sites import SitePoint

from .checkpoint_files import CheckpointFiles
from .errors import CentredWeightsError
from .fold import GainedEdit, blocks, fold_weight
from .matrix_edits import mean_row
from .write_tensor import WriteTensor

__all__ = ["WeightNorms", "refuse_centred", "survey"]

_CENTRED: Final = 0.01


@dataclass(frozen=True, slots=True)
class WeightNorms:
    """Norms of the write weights at one point, all experts together.

    Attributes:
        weight: |W|, Frobenius.
        mean_row: |w|, w the mean of the rows of W.
        update: |W' - W|, Frobenius, before rounding.
        width: d, rows of W.
    """

    weight: float
    mean_row: float
    update: float
    width: int

    @property
    def relative_update(self) -> float:
        """|W' - W| / |W|; 0 for a weight of zeros."""
        return self.update / self.weight if self.weight else 0.0

    @property
    def is_centred(self) -> bool:
        """Whether the mean row is nothing: far below |W| / d, where chance alone would put it."""
        return self.mean_row * self.width <= _CENTRED * self.weight


def survey(
    files: CheckpointFiles,
    tensors: Sequence[WriteTensor],
    edits: Mapping[SitePoint, Sequence[GainedEdit]],
) -> dict[SitePoint, WeightNorms]:
    """Read every tensor once and measure it, in float64."""
    sums: dict[SitePoint, list[float]] = {}
    widths: dict[SitePoint, int] = {}
    for write in tensors:
        total = sums.setdefault(write.point, [0.0, 0.0, 0.0])
        matrix = write.matrix(files.tensor(write.name))
        widths[write.point] = matrix.shape[-2]
        for block in blocks(matrix):
            exact = block.double()
            update = fold_weight(exact, edits[write.point]) - exact
            for index, part in enumerate((exact, mean_row(exact), update)):
                total[index] += float(part.square().sum())
    norms = {point: [math.sqrt(square) for square in total] for point, total in sums.items()}
    return {point: WeightNorms(w, row, up, widths[point]) for point, (w, row, up) in norms.items()}


def refuse_centred(norms: Mapping[SitePoint, WeightNorms]) -> None:
    """Refuse rank-one injection where it would change nothing.

    Raises:
        CentredWeightsError: Names the first such point.
    """
    for point, found in norms.items():
        if found.is_centred:
            raise CentredWeightsError(
                f"the weights that write to {point.site.value!r} of layer {point.layer} are "
                f"centred: the mean of their rows has norm {found.mean_row:.3g}, they "
                f"{found.weight:.3g}. Rank-one injection adds a multiple of that mean and would "
                "change nothing; use 'amplify', or weights that were not centred",
                param="operation",
            )
