"""Two sets of activations, taken at one point of a model or at several layers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import torch
from torch import Tensor

from steering.errors import FitError, NonFiniteError, ShapeMismatchError, SteeringError
from steering.tensor_bytes import tensor_bytes

MIN_SAMPLES: Final = 2
"""Fewest samples of one set from which anything is fitted; use many more."""


@dataclass(frozen=True, eq=False)
class ActivationPair:
    """Activations to leave (source, negative) and to reach (target, positive).

    Rows are samples: one token of one prompt each, all at the same layer, site and kind of
    position as the fitted direction will act at. Leave out the first token of a sequence:
    attention sinks are outliers that no mean survives.

    Attributes:
        source: [N_s, d], float64, CPU.
        target: [N_t, d], float64, CPU.
    """

    source: Tensor
    target: Tensor

    @classmethod
    def of(cls, source: Tensor, target: Tensor, *, names: tuple[str, str]) -> Self:
        """Check two tensors of any float dtype and device; `names` are theirs in errors.

        Raises:
            ShapeMismatchError: Not two matrices of one width.
            FitError: Fewer than `MIN_SAMPLES` rows.
            NonFiniteError: NaN or infinity.
        """
        for name, tensor in zip(names, (source, target), strict=True):
            if tensor.ndim != 2 or tensor.shape[1] == 0:
                raise ShapeMismatchError(
                    f"{name} has shape {list(tensor.shape)}; expected [samples, width]", param=name
                )
            if tensor.shape[0] < MIN_SAMPLES:
                raise FitError(
                    f"{name} has {tensor.shape[0]} samples; expected at least {MIN_SAMPLES}",
                    param=name,
                )
            if not bool(torch.isfinite(tensor).all()):
                raise NonFiniteError(
                    f"{name} holds NaN or infinity; expected finite activations", param=name
                )
        if source.shape[1] != target.shape[1]:
            raise ShapeMismatchError(
                f"{names[1]} has width {target.shape[1]}; {names[0]} has width {source.shape[1]}",
                param=names[1],
            )
        double = (tensor.detach().to("cpu", torch.float64) for tensor in (source, target))
        return cls(*double)

    @cached_property
    def source_mean(self) -> Tensor:
        """mu_s [d], the mean of the source set."""
        return self.source.mean(dim=0)

    @cached_property
    def target_mean(self) -> Tensor:
        """mu_t [d], the mean of the target set."""
        return self.target.mean(dim=0)

    @cached_property
    def shift(self) -> Tensor:
        """mu_t - mu_s [d]."""
        return self.target_mean - self.source_mean

    @cached_property
    def digest(self) -> str:
        """SHA-256 of both sets, in order."""
        state = hashlib.sha256()
        for tensor in (self.source, self.target):
            state.update(f"{tuple(tensor.shape)}\0".encode())
            state.update(tensor_bytes(tensor))
        return state.hexdigest()

    def separation(self, vector: Tensor) -> float:
        """d' along `vector` [d]: difference of mean projections in pooled standard deviations.

        Infinite where the projections have no spread.
        """
        source, target = self.source @ vector, self.target @ vector
        spread = float(((source.var() + target.var()) / 2).sqrt())
        gap = float(target.mean() - source.mean())
        return gap / spread if spread > 0 else float("inf")


def pairs_by_layer(
    positive: Mapping[int, Tensor], negative: Mapping[int, Tensor], *, min_layers: int = 1
) -> dict[int, ActivationPair]:
    """Both sets layer by layer, in ascending order.

    Raises:
        FitError: Too few layers, or not the same layers or samples in every one.
        SteeringError: Tensors that are not two finite matrices of one width; names the layer.
    """
    if set(positive) != set(negative) or len(positive) < min_layers:
        raise FitError(
            f"positive has layers {sorted(positive)} and negative {sorted(negative)}; expected the "
            f"same ones, at least {min_layers}",
            param="positive",
        )
    pairs = {}
    for layer in sorted(positive):
        try:
            pairs[layer] = ActivationPair.of(
                negative[layer], positive[layer], names=("negative", "positive")
            )
        except SteeringError as error:
            raise error.under(f"layers.{layer}") from None
    shapes = {(pair.source.shape, pair.target.shape) for pair in pairs.values()}
    if len(shapes) != 1:
        raise FitError(
            f"the layers differ in samples or width: {sorted(map(str, shapes))}; expected the same "
            "prompts at every layer",
            param="positive",
        )
    return pairs


def joint_digest(pairs: Mapping[int, ActivationPair]) -> str:
    """SHA-256 over the layers and their data."""
    state = hashlib.sha256()
    for layer, pair in sorted(pairs.items()):
        state.update(f"{layer}\0{pair.digest}\0".encode())
    return state.hexdigest()


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """What is known of activations before any is read.

    Attributes:
        num_positive: Number of samples of the positive set.
        num_negative: Number of samples of the negative set.
        width: Width of a sample.
        num_layers: Number of layers they are read at.
        num_heads: Number of query heads of a layer.
    """

    num_positive: int
    num_negative: int
    width: int
    num_layers: int
    num_heads: int
