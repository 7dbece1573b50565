"""From a loaded model to its layout, or to a message that names what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from steering.errors import UnsupportedArchitectureError
from steering.sites import Site, SitePoint

from .conventions import CONVENTIONS, FAMILY_CONVENTIONS, FAMILY_NOTES, TRUNKS, Convention
from .layout import LayerModules, Layout, WriteMatrix, is_conv1d


def detect_layout(model: nn.Module) -> Layout:
    """The layout of a Hugging Face causal language model.

    Its `model_type` decides which module names to expect; a family that is not in the table is
    accepted if one of the known conventions fits it exactly.

    Args:
        model: The loaded model; its text part is used where it is wrapped in a larger one.

    Raises:
        UnsupportedArchitectureError: No convention fits; names what is missing for each.
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
            faults.append(f"as {convention.name}: {mismatch}")
    raise UnsupportedArchitectureError(
        f"{type(model).__name__} (model_type {family!r}) has no layout that fits; "
        + "; ".join(faults)
    )


class _Mismatch(Exception):
    """A convention does not fit; the message says what is missing or in excess."""


def _text_config(model: nn.Module) -> Any:
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise UnsupportedArchitectureError(
            f"{type(model).__name__} has no Hugging Face configuration; expected a causal "
            "language model loaded with transformers"
        )
    return config.get_text_config(decoder=True)


def _require_attention_interface(model: nn.Module, family: str) -> None:
    if not getattr(model, "_supports_attention_backend", False):
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
    is_parallel = bool(getattr(config, "use_parallel_residual", False))
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
        has_parallel_residual=is_parallel,
        unavailable_sites=_unavailable_sites(names, is_parallel),
        notes=_notes(names, family, is_parallel),
        write_matrices=(
            *_write_matrices(layers, names, hidden_size),
            WriteMatrix(SitePoint(0, Site.EMBED), embed, "weight", is_transposed=True),
        ),
    )


def _find_trunk(model: nn.Module, names: Convention) -> nn.Module:
    for path in TRUNKS:
        trunk = _descend(model, path)
        if trunk is not None and hasattr(trunk, names.layers):
            for part in (names.embed, names.final_norm):
                if not hasattr(trunk, part):
                    raise _Mismatch(f"no {path}.{part}")
            return trunk
    raise _Mismatch(f"no decoder layers at {', '.join(f'{t}.{names.layers}' for t in TRUNKS)}")


def _descend(module: nn.Module, path: str) -> nn.Module | None:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, nn.Module) else None


def _layer_modules(block: nn.Module, index: int, names: Convention) -> LayerModules:
    missing = [name for name in names.block_parts if not hasattr(block, name)]
    if not missing and not hasattr(getattr(block, names.attn), names.attn_write):
        missing = [f"{names.attn}.{names.attn_write}"]
    if missing:
        raise _Mismatch(f"layer {index} has no {', '.join(missing)}")
    _refuse_unknown_parts(block, index, names)
    attn = getattr(block, names.attn)
    return LayerModules(
        block=block,
        norm1=_optional(block, names.norm1),
        attn=attn,
        attn_write=getattr(attn, names.attn_write),
        attn_post_norm=_optional(block, names.attn_post_norm),
        norm2=_optional(block, names.norm2),
        mlp=getattr(block, names.mlp),
        mlp_post_norm=_optional(block, names.mlp_post_norm),
    )


def _optional(block: nn.Module, name: str | None) -> nn.Module | None:
    return None if name is None else getattr(block, name)


def _refuse_unknown_parts(block: nn.Module, index: int, names: Convention) -> None:
    """A part that computes something the convention does not know would make the map wrong."""
    known = set(names.block_parts)
    unknown = sorted({name.split(".")[0] for name, _ in block.named_parameters()} - known)
    if unknown:
        raise _Mismatch(f"layer {index} also has {', '.join(unknown)}")


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
        found = list(_mlp_write_matrices(layer.mlp, index, names.mlp_write, hidden_size))
        if not found:
            raise _Mismatch(f"layer {index} has no {names.mlp_write!r} below {names.mlp!r}")
        yield from found


def _mlp_write_matrices(
    mlp: nn.Module, index: int, name: str, hidden_size: int
) -> Iterator[WriteMatrix]:
    point = SitePoint(index, Site.MLP_OUT)
    for owner in mlp.modules():
        part = getattr(owner, name, None)
        if isinstance(part, nn.Module):
            yield WriteMatrix(point, part, "weight", is_transposed=is_conv1d(part))
        elif isinstance(part, nn.Parameter):  # the experts' matrices, stacked
            if hasattr(owner, f"{name}_bias"):
                raise _Mismatch(f"layer {index} has a write bias per expert")
            is_transposed = bool(getattr(owner, "is_transposed", False))
            if part.shape[2 if is_transposed else 1] != hidden_size:
                raise _Mismatch(f"{name!r} of layer {index} has shape {list(part.shape)}")
            yield WriteMatrix(point, owner, name, is_transposed)


def _unavailable_sites(names: Convention, is_parallel: bool) -> dict[Site, str]:
    reasons = {}
    if names.norm1 is None:
        reasons[Site.NORM1] = "attention reads the residual stream without a norm"
    if names.norm2 is None:
        reasons[Site.NORM2] = "the MLP reads the residual stream without a norm"
    if is_parallel:
        reasons[Site.RESID_MID] = "attention and MLP run in parallel and are added at once"
    return reasons


def _notes(names: Convention, family: str, is_parallel: bool) -> dict[Site, str]:
    notes = dict(FAMILY_NOTES.get(family, {}))
    for site, post_norm in (
        (Site.ATTN_OUT, names.attn_post_norm),
        (Site.MLP_OUT, names.mlp_post_norm),
    ):
        if post_norm is not None:
            notes[site] = f"before {post_norm}, which rescales what is added to the residual"
    if is_parallel:
        notes[Site.NORM2] = "a norm of the layer's input, as attention and MLP run in parallel"
    return notes
