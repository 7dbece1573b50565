"""Which tensors of a checkpoint's files are the write matrices of a loaded model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from steering.layout import Layout, WriteMatrix
from steering.sites import SitePoint

from .checkpoint_files import CheckpointFiles
from .errors import CheckpointError

_EXPERT: Final = re.compile(r"\.experts\.(\d+)(?=\.)")
# What Mixtral's files call the parts that every other family's files name as the model does.
_FILE_NAMES: Final = ((".block_sparse_moe.", ".mlp."), (".w2.", ".down_proj."))


@dataclass(frozen=True, slots=True)
class WriteTensor:
    """A tensor of the files that writes to the residual stream.

    Attributes:
        name: Its name in the files.
        point: The point whose activation is its output.
        is_transposed: Whether it is stored as [..., d_in, d_out].
        bias: Name of its bias in the files, or None.
    """

    name: str
    point: SitePoint
    is_transposed: bool
    bias: str | None = None

    def matrix(self, stored: Tensor) -> Tensor:
        """The stored tensor as [..., d_out, d_in]; a view."""
        return stored.mT if self.is_transposed else stored


def locate_write_tensors(
    model: nn.Module, layout: Layout, files: CheckpointFiles, points: Collection[SitePoint]
) -> tuple[WriteTensor, ...]:
    """Find the tensors behind the write matrices at `points`, by name, and check their content.

    Names in files differ from those in memory: of prefixes, and of experts, which are apart in
    the one and stacked in the other. A name therefore only proposes; a tensor is taken where it
    holds the numbers of the loaded weight.

    Args:
        model: Loaded from `files`, unedited.
        layout: The model's architecture map.
        files: The model's checkpoint.
        points: The points whose outputs are to be edited.

    Raises:
        CheckpointError: A weight has no tensor of its content, or more than one.
    """
    found: dict[tuple[str, int | None], str] = {}
    matrices = _matrices(model, layout, points)
    for name in files.names:
        for key, expert in _readings(name):
            matrix = matrices.get(key)
            if matrix is None or not _holds(files, name, matrix, expert):
                continue
            if (key, expert) in found:
                raise CheckpointError(
                    f"{name} and {found[key, expert]} both hold the weight {key}", param="model"
                )
            found[key, expert] = name
    for key, matrix in matrices.items():
        _check_complete(key, matrix, found)
    return tuple(
        _write_tensor(name, matrices[key], files)
        for (key, _), name in sorted(found.items(), key=lambda item: matrices[item[0][0]].point)
    )


def _matrices(
    model: nn.Module, layout: Layout, points: Collection[SitePoint]
) -> Mapping[str, WriteMatrix]:
    """Write matrices by the end of their names, below the trunk: `layers.3.mlp.down_proj`."""
    paths = {id(module): path for path, module in model.named_modules()}
    trunk = paths[id(layout.layers[0].block)].rsplit(".", 2)[0]
    matrices = {}
    for matrix in layout.write_matrices:
        if matrix.point in points:
            path = f"{paths[id(matrix.module)]}.{matrix.parameter}".removesuffix(".weight")
            matrices[path.removeprefix(f"{trunk}.")] = matrix
    return matrices


def _readings(name: str) -> Iterator[tuple[str, int | None]]:
    """Every ending of a tensor's name, as a weight's key and the number of an expert."""
    plain = f".{name}."
    for theirs, ours in _FILE_NAMES:
        plain = plain.replace(theirs, ours)
    plain = plain.removesuffix("weight.").strip(".")
    expert = _EXPERT.search(f".{plain}")
    names: list[tuple[str, int | None]] = [(plain, None)]
    if expert is not None:
        names.append((_EXPERT.sub(".experts", plain), int(expert[1])))
    for text, number in names:
        parts = text.split(".")
        for start in range(len(parts)):
            yield ".".join(parts[start:]), number


def _holds(files: CheckpointFiles, name: str, matrix: WriteMatrix, expert: int | None) -> bool:
    loaded = matrix.weight
    if expert is not None:
        if loaded.ndim != 3 or expert >= loaded.shape[0]:
            return False
        loaded = loaded[expert]
    stored = files.tensor(name)
    stored = stored.mT if matrix.is_transposed else stored
    return stored.shape == loaded.shape and torch.equal(stored.to(loaded.dtype), loaded.cpu())


def _check_complete(
    key: str, matrix: WriteMatrix, found: Mapping[tuple[str, int | None], str]
) -> None:
    experts = sorted(number for other, number in found if other == key and number is not None)
    is_whole = (key, None) in found
    num_experts = matrix.weight.shape[0] if matrix.weight.ndim == 3 else 0
    if is_whole == bool(experts) or (experts and experts != list(range(num_experts))):
        raise CheckpointError(
            f"the files hold no tensor like the loaded weight {key}, or only a part of it; they "
            "can be edited only where they hold the model's weights as they are",
            param="model",
        )


def _write_tensor(name: str, matrix: WriteMatrix, files: CheckpointFiles) -> WriteTensor:
    bias = None
    if matrix.bias is not None:
        bias = f"{name.removesuffix('weight')}bias"
        if bias not in files.names:
            raise CheckpointError(f"the files hold {name} without its bias {bias}", param="model")
    return WriteTensor(name, matrix.point, matrix.is_transposed, bias)
