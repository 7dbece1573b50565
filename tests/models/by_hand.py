"""Steer a plain transformers model at the paths of a table, without hooks or layout of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from steering.sites import Site, SitePoint

from .paths import Paths

__all__ = ["steered_logits"]

Act = Callable[[SitePoint, Tensor], Tensor]

_OUTPUTS = (Site.NORM1, Site.ATTN_OUT, Site.NORM2, Site.MLP_OUT)


def steered_logits(model: Any, paths: Paths, token_ids: list[int], act: Act) -> Tensor:
    """Logits [T, V] of one eager forward, every site replaced by what `act` makes of it.

    Args:
        model: From transformers; set to eager attention.
        paths: Where its family computes each site.
        token_ids: One sequence.
        act: Called with [..., d] at every site in the order of computation; some families flatten
            a batch for their MLP.
    """
    model.set_attn_implementation("eager")
    handles = [_on_output(model.get_submodule(paths[Site.EMBED]), SitePoint(0, Site.EMBED), act)]
    for layer in range(model.config.num_hidden_layers):
        handles += _hook_layer(model, paths, layer, act)
    try:
        with torch.inference_mode():
            logits: Tensor = model(input_ids=torch.tensor([token_ids]), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits[0]


def _hook_layer(model: Any, paths: Paths, layer: int, act: Act) -> list[Any]:
    def module(site: Site) -> nn.Module:
        found: nn.Module = model.get_submodule(paths[site].format(layer))
        return found

    block, attn_write = module(Site.RESID_POST), module(Site.ATTN_OUT)
    handles = []
    if layer == 0:
        handles.append(_on_input(block, SitePoint(0, Site.RESID_PRE), act))
    handles.append(_on_input(attn_write, SitePoint(layer, Site.HEADS), act))
    handles += [
        _on_output(module(site), SitePoint(layer, site), act) for site in _OUTPUTS if site in paths
    ]
    if Site.RESID_MID in paths:
        handles += _on_sum(block, module(Site.RESID_MID), SitePoint(layer, Site.RESID_MID), act)
    # of the oracle, which goes on to `resid_pre` of the layer after
    handles.append(_on_output(block, SitePoint(layer, Site.RESID_POST), act))
    return handles


def _on_output(module: nn.Module, point: SitePoint, act: Act) -> Any:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (act(point, output[0]), *output[1:])
        return act(point, output)

    return module.register_forward_hook(hook)


def _on_input(module: nn.Module, point: SitePoint, act: Act) -> Any:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (act(point, args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": act(point, kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_sum(block: nn.Module, added: nn.Module, point: SitePoint, act: Act) -> list[Any]:
    """Edit x + m a by editing a, x being the layer's input and m its factor on what is added."""
    layer: Any = block
    factor = getattr(layer, "residual_multiplier", getattr(layer, "residual_scale", 1.0))
    seen: list[Tensor] = []

    def remember(_module: nn.Module, args: Any, kwargs: Any) -> None:
        seen[:] = [args[0] if args else kwargs["hidden_states"]]

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        total = seen[0] + factor * output
        return output + (act(point, total) - total) / factor

    return [
        block.register_forward_pre_hook(remember, with_kwargs=True),
        added.register_forward_hook(hook),
    ]
