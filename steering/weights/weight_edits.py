"""What becomes of a checkpoint's weights: how large each change is, and what survives rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from steering.sites import SitePoint

from .checkpoint_files import CheckpointFiles
from .errors import CentredWeightsError
from .fold import GainedEdit, column_blocks, fold_bias, fold_weight
from .matrix_edits import mean_row
from .write_tensor import WriteTensor

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
        for block in column_blocks(matrix):
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


@dataclass(frozen=True, slots=True)
class Survival:
    """Sums over elements, D the update wanted and A the update after rounding.

    Attributes:
        wanted: sum D^2.
        along: sum A D.
        missed: sum (A - D)^2.
    """

    wanted: float = 0.0
    along: float = 0.0
    missed: float = 0.0

    def __add__(self, other: Survival) -> Survival:
        return Survival(
            self.wanted + other.wanted, self.along + other.along, self.missed + other.missed
        )

    @property
    def retained(self) -> float | None:
        """<A, D> / <D, D>: the fraction of the update that is applied; None without one."""
        return self.along / self.wanted if self.wanted else None

    @property
    def relative_error(self) -> float | None:
        """|A - D| / |D|: what rounding adds to it, and takes from it; None without one."""
        return (self.missed / self.wanted) ** 0.5 if self.wanted else None


def edit_stored(
    stored: Tensor,
    write: WriteTensor,
    edits: Sequence[GainedEdit],
    dtype: torch.dtype,
    loaded_as: torch.dtype | None = None,
) -> tuple[Tensor, Survival]:
    """Edit a tensor of a checkpoint.

    Args:
        stored: The tensor as it is in the file; not changed.
        write: Which write matrix it is.
        edits: The edits at its point, in order.
        dtype: Dtype of the result.
        loaded_as: Dtype the result is rounded to when it is loaded; None means `dtype`.

    Returns:
        The edited tensor in `dtype`, in the layout of `stored`, and what survived the rounding.
        Computed in float64, a block of columns at a time.
    """
    edited = stored.to(dtype, copy=True)
    total = Survival()
    for source, target in zip(
        column_blocks(write.matrix(stored)), column_blocks(write.matrix(edited)), strict=True
    ):
        exact = source.double()
        folded = fold_weight(exact, edits)
        target.copy_(folded)
        wanted = folded - exact
        applied = _loaded(target, loaded_as) - _loaded(source, loaded_as)
        total += Survival(
            float(wanted.square().sum()),
            float((applied * wanted).sum()),
            float((applied - wanted).square().sum()),
        )
    return edited, total


def _loaded(part: Tensor, dtype: torch.dtype | None) -> Tensor:
    return (part if dtype is None else part.to(dtype)).double()


@dataclass(frozen=True, slots=True)
class UntiedEmbedding:
    """An embedding that served as the unembedding too, and no longer does.

    Attributes:
        embedding: Its name in the files; it is edited.
        unembedding: Name under which it is kept as it was.
    """

    embedding: str
    unembedding: str


@dataclass(frozen=True, eq=False)
class WeightEdits:
    """Edits of a checkpoint.

    Attributes:
        files: The checkpoint; never changed.
        tensors: Its tensors to edit.
        edits: The edits at each of their points, in order.
        dtype: Dtype of all weights written; None keeps each as it is.
        untied: Given where the embedding is edited and was tied.
    """

    files: CheckpointFiles
    tensors: Sequence[WriteTensor]
    edits: Mapping[SitePoint, Sequence[GainedEdit]]
    dtype: torch.dtype | None = None
    untied: UntiedEmbedding | None = None

    @cached_property
    def by_name(self) -> Mapping[str, WriteTensor]:
        """The write matrix that each edited tensor belongs to, biases included."""
        weights = {write.name: write for write in self.tensors}
        return weights | {write.bias: write for write in self.tensors if write.bias is not None}

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype in which an edited tensor is written."""
        return self.dtype or self.files.tensor(name).dtype

    def edited(self, name: str) -> tuple[Tensor, Survival]:
        """A tensor of `by_name` after its edit, and what of it survives; computed every time.

        Of a bias nothing is counted.
        """
        write = self.by_name[name]
        stored, edits = self.files.tensor(name), self.edits[write.point]
        if name == write.bias:
            return fold_bias(stored, edits).to(self.dtype_of(name)), Survival()
        loaded_as = self.dtype or self.files.loading_dtype
        return edit_stored(stored, write, edits, self.dtype_of(name), loaded_as)

    def dry_run(self) -> dict[SitePoint, Survival]:
        """What would survive at each point, with nothing written."""
        survived = dict.fromkeys(self.edits, Survival())
        for write in self.tensors:
            survived[write.point] += self.edited(write.name)[1]
        return survived
