"""A stored steering artifact: named tensors, and where in which model they belong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from .errors import (
    InvalidFieldError,
    LayerOutOfRangeError,
    NonFiniteError,
    ShapeMismatchError,
    SteeringError,
    UnsupportedDtypeError,
    ZeroVectorError,
)
from .sites import Site
from .tensor_bytes import tensor_bytes

MIN_NORM: Final = 1e-6
"""A vector shorter than this (L2, as stored) has no usable direction."""

_DTYPES: Final = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class DirectionKind(StrEnum):
    """What the tensors of a direction mean."""

    VECTOR = "vector"
    BASIS = "basis"
    TRANSPORT = "transport"
    DIAGONAL = "diagonal"
    PLANE = "plane"
    HEADS = "heads"
    PROBE = "probe"


# Shape of each tensor by kind: "d" is the width of the site, "k" the same free number everywhere,
# "h" the number of heads. A name in _OPTIONAL may be absent.
_SHAPES: Final[dict[DirectionKind, dict[str, tuple[str | int, ...]]]] = {
    DirectionKind.VECTOR: {"vector": ("d",), "reference": ("d",)},
    DirectionKind.BASIS: {"basis": ("k", "d"), "reference": ("d",)},
    DirectionKind.TRANSPORT: {
        "basis": ("k", "d"),
        "offset": ("k",),
        "map": ("k", "d"),
        "shift": ("d",),
    },
    DirectionKind.DIAGONAL: {"scale": ("d",), "shift": ("d",)},
    DirectionKind.PLANE: {"basis": (2, "d")},
    DirectionKind.HEADS: {"scale": ("h",)},
    DirectionKind.PROBE: {"weight": ("d",), "bias": (1,)},
}
_OPTIONAL: Final = frozenset({"reference"})
_MUST_HAVE_LENGTH: Final = frozenset({"vector", "basis", "weight"})


@dataclass(frozen=True, eq=False)
class Direction:
    """A named, typed set of tensors at one site.

    Tensors by kind (d = width of the site); a per-layer set appends `.<layer>` to each name:

        vector     vector [d]                      optional reference [d]
        basis      basis [k, d]                    optional reference [d]
        transport  basis [k, d] (V), offset [k] (m), map [k, d] (C), shift [d] (b)
        diagonal   scale [d], shift [d]            meaning scale * h + shift
        plane      basis [2, d]
        heads      scale [n_heads]
        probe      weight [d], bias [1]

    Attributes:
        name: Registry name.
        kind: What the tensors mean.
        site: Where they were taken and belong.
        layers: Layers they were stored for (0-based, ascending, unique).
        tensors: CPU tensors in F32, F16 or BF16, by name. Never mutated.
        version: Registry version, or None for a direction that is not stored.
        model_fingerprint: Model it was made for; None means any model of this width.
        requires: Scopes a key must hold to use it; see `steering.requirements`.
        provenance: Method, data hash, source file and the like; free JSON.
        tags: Free labels; not part of the digest.

    Raises:
        SteeringError: A subclass naming the tensor that is wrong, got and expected.
    """

    name: str
    kind: DirectionKind
    site: Site
    layers: tuple[int, ...]
    tensors: Mapping[str, Tensor]
    version: int | None = None
    model_fingerprint: str | None = None
    requires: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        _check_layers(self.layers)
        _check_site(self.kind, self.site)
        widths = {layer: self._check_layer(layer) for layer in self._sets()}
        first, width = next(iter(widths.items()))
        other = next((layer for layer in widths if widths[layer] != width), None)
        if other is not None:
            raise ShapeMismatchError(
                f"the tensors of layer {other} have width {widths[other]}, those of layer {first} "
                f"{width}; expected one width",
                param="tensors",
            )

    @cached_property
    def is_per_layer(self) -> bool:
        """Whether each layer has tensors of its own."""
        return all("." in name for name in self.tensors) and bool(self.tensors)

    @cached_property
    def width(self) -> int:
        """Width of its tensors: of the site, or the number of heads for kind `heads`."""
        name = next(n for n, shape in _SHAPES[self.kind].items() if shape[-1] in ("d", "h"))
        return int(self.at(self.layers[0])[name].shape[-1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over kind, site, layers and every tensor's name, dtype, shape and bytes."""
        state = hashlib.sha256()
        state.update(f"{self.kind}\0{self.site}\0{self.layers}\0".encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            state.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            state.update(tensor_bytes(tensor))
        return state.hexdigest()

    @cached_property
    def lengths(self) -> Mapping[int, float]:
        """L2 norm of the vector at each layer; empty for kinds other than `vector`."""
        if self.kind is not DirectionKind.VECTOR:
            return {}
        own = {
            layer: float(self._names_at(layer)["vector"].to(torch.float64).norm())
            for layer in self._sets()
        }
        return {layer: own[layer if self.is_per_layer else self.layers[0]] for layer in self.layers}

    @property
    def reference(self) -> str:
        """`name@version`, or the bare name of a direction that is not stored."""
        return self.name if self.version is None else f"{self.name}@{self.version}"

    @property
    def is_bound(self) -> bool:
        """Whether it may be used only at the layers and the site it was stored for."""
        return self.is_per_layer or self.kind in (DirectionKind.TRANSPORT, DirectionKind.DIAGONAL)

    def at(self, layer: int) -> Mapping[str, Tensor]:
        """The tensors for `layer`, without the layer suffix, in float32 (copies)."""
        return {name: t.to(torch.float32, copy=True) for name, t in self._names_at(layer).items()}

    def _check_layer(self, layer: int) -> int:
        suffix = f".{layer}" if self.is_per_layer else ""
        return _check_set(self.kind, self._names_at(layer), suffix)

    def _sets(self) -> tuple[int, ...]:
        return self.layers if self.is_per_layer else self.layers[:1]

    def _names_at(self, layer: int) -> dict[str, Tensor]:
        return self._by_layer.get(layer, {}) if self.is_per_layer else dict(self.tensors)

    @cached_property
    def _by_layer(self) -> dict[int, dict[str, Tensor]]:
        """Tensors of a per-layer set, by layer and by name without its suffix."""
        layers = {str(layer): layer for layer in self.layers}
        found: dict[int, dict[str, Tensor]] = {layer: {} for layer in self.layers}
        # Sorted: the order of a file's tensors is its reader's, and a refusal names the first.
        for stored in sorted(self.tensors):
            name, _, suffix = stored.rpartition(".")
            if suffix not in layers:
                raise InvalidFieldError(
                    f"tensor {stored!r} names a layer outside layers {list(self.layers)}",
                    param=f"tensors.{stored}",
                )
            found[layers[suffix]][name] = self.tensors[stored]
        return found


def _check_layers(layers: tuple[int, ...]) -> None:
    if not layers:
        raise LayerOutOfRangeError("layers is empty; expected at least one layer", param="layers")
    if list(layers) != sorted(set(layers)) or layers[0] < 0:
        raise LayerOutOfRangeError(
            f"layers is {list(layers)}; expected unique ascending layers from 0", param="layers"
        )


def _check_site(kind: DirectionKind, site: Site) -> None:
    if kind is DirectionKind.HEADS and site is not Site.HEADS:
        raise InvalidFieldError(
            f"site is {site.value!r} for kind 'heads'; expected 'heads'", param="site"
        )


def _check_set(kind: DirectionKind, tensors: Mapping[str, Tensor], suffix: str) -> int:
    """Check one layer's tensors, stored under names with `suffix`; returns their width."""
    shapes = _SHAPES[kind]
    required = set(shapes) - _OPTIONAL
    missing, unknown = required - set(tensors), set(tensors) - set(shapes)
    if missing or unknown:
        raise InvalidFieldError(
            f"tensors{suffix and ' of layer ' + suffix[1:]} are {sorted(tensors)}; kind "
            f"{kind.value!r} expects {sorted(required)}"
            + (f" and allows {sorted(set(shapes) & _OPTIONAL)}" if _OPTIONAL & set(shapes) else ""),
            param="tensors",
        )
    sizes: dict[str, int] = {}
    for name, tensor in sorted(tensors.items()):
        try:
            _check_tensor(name + suffix, tensor, shapes[name], sizes)
            if name in _MUST_HAVE_LENGTH:
                _check_length(name + suffix, tensor)
        except SteeringError as error:
            raise error.under(f"tensors.{name}{suffix}") from None
    return sizes.get("d", sizes.get("h", 0))


def _check_tensor(
    name: str, tensor: Tensor, shape: tuple[str | int, ...], sizes: dict[str, int]
) -> None:
    if tensor.dtype not in _DTYPES:
        raise UnsupportedDtypeError(
            f"{name} has dtype {tensor.dtype}; expected one of {', '.join(_DTYPES.values())}"
        )
    expected = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)
    fits = tensor.ndim == len(shape) and all(
        got == want or (isinstance(want, str) and got > 0)
        for got, want in zip(tensor.shape, expected, strict=True)
    )
    if not fits:
        raise ShapeMismatchError(
            f"{name} has shape {list(tensor.shape)}; expected [{', '.join(map(str, expected))}]"
        )
    for dim, got in zip(shape, tensor.shape, strict=True):
        if isinstance(dim, str):
            sizes[dim] = int(got)
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(f"{name} holds NaN or infinity; expected finite numbers only")


def _check_length(name: str, tensor: Tensor) -> None:
    norms = tensor.to(torch.float64).norm(dim=-1)
    if bool((norms < MIN_NORM).any()):
        row = f"row {int(norms.argmin())} of {name}" if norms.ndim else name
        raise ZeroVectorError(
            f"{row} has norm {float(norms.min()):.3g}; expected at least {MIN_NORM:g}"
        )
