"""What a model makes of positions, where the pack of a step would mislead it.

A pack holds many requests, so what depends on its longest position lets one request change the
numbers of another. `dynamic` rotary frequencies change with every length and are refused;
`longrope` has two sets, and the context length of the server decides between them once. Llama 4
counts the rows of a forward where it means positions, and is given these.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

from steering.errors import UnsupportedArchitectureError

_LONGROPE: Final = "longrope"
_FROZEN: Final = "longrope, frozen"


def refuse_dynamic_rope(model: nn.Module) -> None:
    """Check that no rotary embedding changes with the length of what runs.

    Raises:
        UnsupportedArchitectureError: One does.
    """
    for name, module in model.named_modules():
        for rope_type in _rope_types(module).values():
            if "dynamic" in rope_type:
                raise UnsupportedArchitectureError(
                    f"{name} uses {rope_type!r} rotary embeddings, whose frequencies depend on the "
                    "longest request of a batch; set another rope_type in the model's config.json",
                    param="model",
                )


def freeze_longrope(model: nn.Module, max_model_len: int) -> str | None:
    """Fix every `longrope` embedding to the set that a context of `max_model_len` needs.

    Mutates the model. Shorter requests then use the long set too where the server allows longer
    ones, unlike in transformers, where the length of each forward decides.

    Returns:
        "long" or "short", or None where the model has no such embedding.
    """
    chosen = None
    for module in model.modules():
        types = _rope_types(module)
        for layer_type, rope_type in types.items():
            if rope_type == _LONGROPE:
                chosen = _freeze(module, layer_type, max_model_len)
    return chosen


def give_positions(model: nn.Module) -> int:
    """Let Llama 4's attention temperature follow the positions given, not the rows of a forward.

    Layers without rotary embedding multiply their queries by 1 + scale log1p(floor((p + 1) / f))
    at position p, which transformers counts from the start of the forward. Mutates the model:
    that is switched off, and hooks on the layer and its `q_proj` do the same with positions.

    Returns:
        The number of layers changed.
    """
    tuned = [
        block
        for block in model.modules()
        if getattr(getattr(block, "self_attn", None), "attn_temperature_tuning", False)
    ]
    changed = 0
    for block in tuned:
        attn: Any = block.self_attn
        if attn.use_rope:
            continue
        temperature = _Temperature(float(attn.floor_scale), float(attn.attn_scale))
        block.register_forward_pre_hook(temperature.follow, with_kwargs=True)
        attn.q_proj.register_forward_hook(temperature.apply)
        attn.attn_temperature_tuning = False
        changed += 1
    return changed


class _Temperature:
    """The factor on one layer's queries at the positions of the current forward."""

    def __init__(self, floor_scale: float, scale: float) -> None:
        self._floor_scale = floor_scale
        self._scale = scale
        self._factor = torch.ones(1)

    def follow(self, _block: nn.Module, _args: Any, kwargs: Any) -> None:
        whole = torch.floor((kwargs["position_ids"].float() + 1.0) / self._floor_scale)
        self._factor = (torch.log1p(whole) * self._scale + 1.0)[..., None]  # [1, T, 1]

    def apply(self, _projection: nn.Module, _args: Any, queries: torch.Tensor) -> torch.Tensor:
        return (queries * self._factor.to(queries.device)).to(queries.dtype)


def _rope_types(module: nn.Module) -> dict[str | None, str]:
    """Kinds of rotary embedding by layer type; under None where all layers share one."""
    found = getattr(module, "rope_type", None)
    if isinstance(found, str):
        return {None: found}
    return dict(found) if isinstance(found, dict) else {}


def _freeze(module: Any, layer_type: str | None, max_model_len: int) -> str:
    prefix = "" if layer_type is None else f"{layer_type}_"
    parameters = module.config.rope_parameters
    if layer_type is not None:
        parameters = parameters[layer_type]
    trained = parameters["original_max_position_embeddings"]
    chosen = "long" if max_model_len > trained else "short"
    # `original_inv_freq` is the short set, computed for no particular length
    frequencies = getattr(module, f"{prefix}original_inv_freq")
    factors = {name: torch.tensor(parameters[f"{name}_factor"]) for name in ("short", "long")}
    if chosen == "long":
        ratio = factors["short"] / factors["long"]
        frequencies = frequencies * ratio.to(frequencies)
    getattr(module, f"{prefix}inv_freq").copy_(frequencies)
    if layer_type is None:
        module.rope_type = _FROZEN
    else:
        module.rope_type[layer_type] = _FROZEN
    return chosen
