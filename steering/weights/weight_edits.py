"""What becomes of a checkpoint's weights, tensor by tensor, and what of it survives rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from steering.sites import SitePoint

from .checkpoint_files import CheckpointFiles
from .fold import GainedEdit, blocks, fold_bias, fold_weight
from .write_tensor import WriteTensor

__all__ = ["Survival", "UntiedEmbedding", "WeightEdits", "edit_stored"]


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
        blocks(write.matrix(stored)), blocks(write.matrix(edited)), strict=True
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
