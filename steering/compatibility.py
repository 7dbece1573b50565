"""Whether a direction fits a loaded model."""

from __future__ import annotations

from typing import Final

import torch

from .directions import Direction, DirectionKind
from .errors import (
    IncompatibleModelError,
    LayerOutOfRangeError,
    NonFiniteError,
    NormTooLargeError,
    NotStoredThereError,
    ShapeMismatchError,
    SteeringError,
)
from .model_spec import ModelSpec
from .sites import Site, sole_layer

MAX_NORM: Final = 1e6
"""Longest row (L2) of any stored tensor; far above any activation, far below overflow."""


def expected_width(kind: DirectionKind, site: Site, spec: ModelSpec) -> int:
    """Last dimension of the direction's tensors in this model."""
    return spec.num_heads if kind is DirectionKind.HEADS else spec.width(site)


def check_direction(direction: Direction, spec: ModelSpec) -> None:
    """Check width, layers, site, size and fingerprint against the model.

    Raises:
        SteeringError: A subclass naming the field, what was got and what was expected.
    """
    spec.require_site(direction.site, editable=False)
    for layer in direction.layers:
        spec.require_layer(layer)
    expected = expected_width(direction.kind, direction.site, spec)
    if direction.width != expected:
        raise ShapeMismatchError(
            f"tensors have width {direction.width}; {spec.name} expects {expected} at "
            f"{direction.site.value!r}",
            param="tensors",
        )
    fingerprint = direction.model_fingerprint
    if fingerprint is not None and fingerprint != spec.fingerprint:
        raise IncompatibleModelError(
            f"model_fingerprint is {fingerprint}; the loaded model {spec.name} has "
            f"{spec.fingerprint}; fit the direction on this model, or remove the field if it is "
            "known to fit",
            param="model_fingerprint",
        )
    _check_sizes(direction, spec)


def check_place(
    direction: Direction,
    site: Site,
    layers: tuple[int, ...],
    spec: ModelSpec,
    *,
    param: str = "layers",
) -> None:
    """Check that a direction may be used at layers of a site; `param` is the layers' field.

    Raises:
        SteeringError: A subclass naming the field, what was got and what was expected.
    """
    _check_edge_layers(site, layers, spec, param)
    elsewhere = [layer for layer in layers if layer not in direction.layers]
    if direction.is_bound and (elsewhere or site is not direction.site):
        raise NotStoredThereError(
            f"{direction.reference} is stored for {direction.site.value!r} of layers "
            f"{list(direction.layers)} and cannot be used at {site.value!r} of layers "
            f"{list(layers)}; use layers 'stored', or fit one there",
            param=param if elsewhere else "site",
        )
    expected = expected_width(direction.kind, site, spec)
    if direction.width != expected:
        raise ShapeMismatchError(
            f"{direction.reference} has width {direction.width}; {site.value!r} has {expected}",
            param="site",
        )


def _check_edge_layers(site: Site, layers: tuple[int, ...], spec: ModelSpec, param: str) -> None:
    only = sole_layer(site, spec.num_layers)
    if only is not None and layers != (only,):
        raise LayerOutOfRangeError(
            f"{param} is {list(layers)} at {site.value!r}, which belongs to layer {only} alone",
            param=param,
        )


def _check_sizes(direction: Direction, spec: ModelSpec) -> None:
    limit = min(MAX_NORM, spec.max_abs)
    for name, tensor in direction.tensors.items():
        values = tensor.to(torch.float64)
        largest = float(values.norm(dim=-1).max())
        error: SteeringError | None = None
        if largest > limit:
            error = NormTooLargeError(
                f"{name} has norm {largest:.3g}; expected at most {limit:.3g}"
            )
        elif not bool(torch.isfinite(tensor.to(torch.float32)).all()):
            error = NonFiniteError(f"{name} is not finite in float32")
        if error is not None:
            raise error.under(f"tensors.{name}")
