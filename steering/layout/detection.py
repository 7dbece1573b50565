"""From a loaded model to its layout, or to a message that names what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from torch import nn

from steering.errors import UnsupportedArchitectureError
from steering.sites import Site, SitePoint

from .conventions import (
    CONVENTIONS,
    EMBEDDING_MULTIPLIER,
    FAMILY_CONVENTIONS,
    FAMILY_NOTES,
    RESIDUAL_MULTIPLIERS,
    SILENT_FAMILIES,
    TRUNKS,
    Convention,
)
from .layout import LayerModules, Layout, WriteMatrix, is_conv1d

_FAR: Final = 10  # how much worse a missing part is than one in excess


def detect_layout(model: nn.Module) -> Layout:
    """The layout of a Hugging Face causal language model.

    Its `model_type` decides which module names to expect; a family that is not in the table is
    accepted if one of the known conventions fits it exactly.

    Args:
        model: The loaded model; its text part is used where it is wrapped in a larger one.

    Raises:
        UnsupportedArchitectureError: No convention fits; names what is missing for the closest.
    """
    config = _text_config(model)
    family = str(config.model_type)
    _require_attention_interface(model, family)
    known = FAMILY_CONVENTIONS.get(family)
    faults = []
    for convention in CONVENTIONS if known is None else (known,):
        try:
            return _build(model, config, family, convention)
        except _Mismatch as mismatch:
            faults.append((mismatch.distance, f"as {convention.name}: {mismatch}"))
    raise UnsupportedArchitectureError(
        f"{type(model).__name__} (model_type {family!r}) has no layout that fits; closest "
        + min(faults, key=lambda fault: fault[0])[1]
    )


class _Mismatch(Exception):
    """A convention does not fit; the message says what is missing or in excess.

    Attributes:
        distance: How far off it is, to tell which convention is the closest.
    """

    def __init__(self, message: str, distance: int = 1) -> None:
        super().__init__(message)
        self.distance = distance


def _text_config(model: nn.Module) -> Any:
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise UnsupportedArchitectureError(
            f"{type(model).__name__} has no Hugging Face configuration; expected a causal "
            "language model loaded with transformers"
        )
    return config.get_text_config(decoder=True)


def calls_attention_interface(architecture: Any, family: str) -> bool:
    """Whether a model class attends through transformers' interface, where an engine can stand in.

    Args:
        architecture: The class, or a model of it.
        family: `model_type` of its text configuration.
    """
    says_so = getattr(architecture, "_supports_attention_backend", False)
    return bool(says_so) or family in SILENT_FAMILIES


def _require_attention_interface(model: nn.Module, family: str) -> None:
    if not calls_attention_interface(model, family):
        raise UnsupportedArchitectureError(
            f"{type(model).__name__} (model_type {family!r}) bypasses the attention interface of "
            "transformers, so its attention can neither be batched nor cached here; use a model "
            "whose class supports attention backends"
        )


def _build(model: nn.Module, config: Any, family: str, names: Convention) -> Layout:
    trunk = _find_trunk(model, names)
    blocks = list(getattr(trunk, names.layers))
    if len(blocks) != config.num_hidden_layers:
        raise _Mismatch(
            f"{names.layers!r} holds {len(blocks)} layers; the configuration says "
            f"{config.num_hidden_layers}"
        )
    layers = tuple(_layer_modules(block, index, names) for index, block in enumerate(blocks))
    num_heads, hidden_size = int(config.num_attention_heads), int(config.hidden_size)
    is_parallel = names.has_shared_norm or bool(getattr(config, "use_parallel_residual", False))
    multiplier = _embedding_multiplier(trunk, config)
    embed = getattr(trunk, names.embed)
    if embed.weight.shape[1] != hidden_size:
        raise _Mismatch(f"the embedding is {embed.weight.shape[1]} wide, not {hidden_size}")
    return Layout(
        family=family,
        embed=embed,
        layers=layers,
        final_norm=getattr(trunk, names.final_norm),
        hidden_size=hidden_size,
        num_heads=num_heads,
        head_dim=_head_dim(layers, num_heads),
        embedding_multiplier=multiplier,
        has_parallel_residual=is_parallel,
        unavailable_sites=_unavailable_sites(names, is_parallel),
        notes=_notes(names, family, layers[0], is_parallel, multiplier),
        write_matrices=(
            *_write_matrices(layers, names, hidden_size),
            WriteMatrix(SitePoint(0, Site.EMBED), embed, "weight", is_transposed=True),
        ),
    )


def _embedding_multiplier(trunk: nn.Module, config: Any) -> float:
    if getattr(config, "mup_enabled", False):  # of AFMoE, which keeps no factor
        return math.sqrt(config.hidden_size)
    return float(getattr(trunk, EMBEDDING_MULTIPLIER, 1.0))


def _find_trunk(model: nn.Module, names: Convention) -> nn.Module:
    for path in TRUNKS:
        trunk = _descend(model, path)
        if trunk is not None and hasattr(trunk, names.layers):
            missing = [part for part in (names.embed, names.final_norm) if not _has(trunk, part)]
            if missing:
                raise _Mismatch(f"no {path}.{missing[0]}", _FAR)
            return trunk
    places = ", ".join(f"{trunk}.{names.layers}" for trunk in TRUNKS)
    raise _Mismatch(f"no decoder layers at {places}", 2 * _FAR)


def _has(module: nn.Module, name: str) -> bool:
    return getattr(module, name, None) is not None


def _descend(module: nn.Module, path: str) -> nn.Module | None:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, nn.Module) else None


def _layer_modules(block: nn.Module, index: int, names: Convention) -> LayerModules:
    missing = [name for name in names.block_parts if not _has(block, name)]
    if not missing and not _has(getattr(block, names.attn), names.attn_write):
        missing = [f"{names.attn}.{names.attn_write}"]
    if missing:
        raise _Mismatch(f"layer {index} has no {', '.join(missing)}", _FAR * len(missing))
    _refuse_unknown_parts(block, index, names)
    attn, mlp = getattr(block, names.attn), getattr(block, names.mlp)
    return LayerModules(
        block=block,
        norm1=_optional(block, names.norm1),
        attn=attn,
        attn_write=getattr(attn, names.attn_write),
        attn_post_norm=_optional(block, names.attn_post_norm),
        norm2=_optional(block, names.norm2),
        mlp_first=_optional(block, names.mlp_first) or mlp,
        mlp=mlp,
        mlp_post_norm=_optional(block, names.mlp_post_norm),
        residual_multiplier=next(
            (float(getattr(block, name)) for name in RESIDUAL_MULTIPLIERS if _has(block, name)), 1.0
        ),
    )


def _optional(block: nn.Module, name: str | None) -> nn.Module | None:
    found = None if name is None else getattr(block, name)
    return None if isinstance(found, nn.Identity) else found


def _refuse_unknown_parts(block: nn.Module, index: int, names: Convention) -> None:
    """A part that computes something the convention does not know would make the map wrong."""
    known = set(names.block_parts)
    unknown = sorted({name.split(".")[0] for name, _ in block.named_parameters()} - known)
    if unknown:
        raise _Mismatch(f"layer {index} also has {', '.join(unknown)}", len(unknown))


def _head_dim(layers: Sequence[LayerModules], num_heads: int) -> int:
    widths = sorted({_input_width(layer.attn_write) for layer in layers})
    if len(widths) != 1 or widths[0] % num_heads:
        raise _Mismatch(
            f"attention output projections read widths {widths}; expected one width, divisible "
            f"by {num_heads} heads"
        )
    return widths[0] // num_heads


def _input_width(write: nn.Module) -> int:
    name = "nx" if is_conv1d(write) else "in_features"
    if not hasattr(write, name):
        raise _Mismatch(f"the attention output projection is a {type(write).__name__}")
    return int(getattr(write, name))


def _write_matrices(
    layers: Sequence[LayerModules], names: Convention, hidden_size: int
) -> Iterator[WriteMatrix]:
    for index, layer in enumerate(layers):
        attn_point = SitePoint(index, Site.ATTN_OUT)
        write = layer.attn_write
        yield WriteMatrix(attn_point, write, "weight", is_transposed=is_conv1d(write))
        found = list(_mlp_write_matrices(layer.mlp, index, names, hidden_size))
        if not found:
            raise _Mismatch(f"layer {index} has no {names.mlp_write!r} below {names.mlp!r}", _FAR)
        yield from found


def _mlp_write_matrices(
    mlp: nn.Module, index: int, names: Convention, hidden_size: int
) -> Iterator[WriteMatrix]:
    point, name = SitePoint(index, Site.MLP_OUT), names.mlp_write
    if name is None:
        yield WriteMatrix(point, mlp, "weight", is_transposed=is_conv1d(mlp))
        return
    for owner in mlp.modules():
        part = getattr(owner, name, None)
        if isinstance(part, nn.Module):
            yield WriteMatrix(point, part, "weight", is_transposed=is_conv1d(part))
        elif isinstance(part, nn.Parameter):  # the experts' matrices, stacked
            is_transposed = bool(getattr(owner, "is_transposed", names.has_transposed_experts))
            if part.shape[2 if is_transposed else 1] != hidden_size:
                raise _Mismatch(f"{name!r} of layer {index} has shape {list(part.shape)}")
            yield WriteMatrix(point, owner, name, is_transposed)


def _unavailable_sites(names: Convention, is_parallel: bool) -> dict[Site, str]:
    reasons = {}
    if names.norm1 is None:
        reasons[Site.NORM1] = "attention reads the residual stream without a norm"
    if names.has_shared_norm:
        reasons[Site.NORM2] = "the MLP reads 'norm1', as attention does"
    elif names.norm2 is None:
        reasons[Site.NORM2] = "the MLP reads the residual stream without a norm"
    if is_parallel:
        reasons[Site.RESID_MID] = "attention and MLP run in parallel and are added at once"
    return reasons


def _notes(
    names: Convention, family: str, layer: LayerModules, is_parallel: bool, embedding: float
) -> dict[Site, str]:
    notes = dict(FAMILY_NOTES.get(family, {}))
    if embedding != 1.0:
        notes[Site.EMBED] = f"before the model multiplies it by {embedding:g}"
    for site, post_norm, name in (
        (Site.ATTN_OUT, layer.attn_post_norm, names.attn_post_norm),
        (Site.MLP_OUT, layer.mlp_post_norm, names.mlp_post_norm),
    ):
        steps = [] if post_norm is None else [f"its norm {name}"]
        if layer.residual_multiplier != 1.0:
            steps.append(f"the factor {layer.residual_multiplier:g}")
        if steps:
            notes[site] = f"before {' and '.join(steps)}"
    if names.has_shared_norm:
        notes[Site.NORM1] = "read by attention and by the MLP"
    elif is_parallel:
        notes[Site.NORM2] = "a norm of the layer's input, as attention and MLP run in parallel"
    return notes
