"""Forward hooks, installed once, that hand each site's activation to the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .layout import LayerModules, Layout
from .sites import Site, SitePoint


class SiteRuntime(Protocol):
    """What acts at the sites."""

    def edit(self, point: SitePoint, hidden: Tensor) -> Tensor:
        """The activation to go on with: like `hidden`, or `hidden` itself where nothing acts.

        Must not mutate `hidden`, raise, or wait for the device.
        """
        ...


class HookHandles:
    """The hooks of one model."""

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Take the hooks off; the model computes what it did before. May be called twice."""
        while self._handles:
            self._handles.pop().remove()


def hooked_point(point: SitePoint) -> SitePoint:
    """The point whose hook realises `point`.

    The input of block l > 0 is edited where it is made, after block l - 1: a pre-hook may see a
    tensor on another device. All other points have a hook of their own.
    """
    if point.site is Site.RESID_PRE and point.layer > 0:
        return SitePoint(point.layer - 1, Site.RESID_POST)
    return point


def install_hooks(layout: Layout, runtime: SiteRuntime) -> HookHandles:
    """Call `runtime.edit` at every site of the model, in the order of computation.

    `resid_mid` is edited in place, because the residual keeps the tensor that the hooked module
    reads. `final` is read only: what `edit` returns there is dropped.

    Args:
        layout: The architecture map; its modules get the hooks.
        runtime: Decides at each step what is read and edited.

    Returns:
        Handles that take the hooks off again.
    """
    last = layout.num_layers - 1
    handles = [
        _edit_output(layout.embed, runtime, SitePoint(0, Site.EMBED)),
        _edit_input(layout.layers[0].block, runtime, SitePoint(0, Site.RESID_PRE)),
        _read_output(layout.final_norm, runtime, SitePoint(last, Site.FINAL)),
    ]
    for index, layer in enumerate(layout.layers):
        handles += _hook_layer(layer, index, layout, runtime)
    return HookHandles(handles)


def _hook_layer(
    layer: LayerModules, index: int, layout: Layout, runtime: SiteRuntime
) -> list[RemovableHandle]:
    handles = [
        _edit_input(layer.attn_write, runtime, SitePoint(index, Site.HEADS)),
        _edit_output(layer.attn_write, runtime, SitePoint(index, Site.ATTN_OUT)),
        _edit_output(layer.mlp, runtime, SitePoint(index, Site.MLP_OUT)),
        _edit_output(layer.block, runtime, SitePoint(index, Site.RESID_POST)),
    ]
    if layout.has_site(Site.RESID_MID):
        point = SitePoint(index, Site.RESID_MID)
        handles.append(_edit_input_in_place(layer.after_resid_mid, runtime, point))
    if layer.norm1 is not None:
        handles.append(_edit_output(layer.norm1, runtime, SitePoint(index, Site.NORM1)))
    if layer.norm2 is not None:
        handles.append(_edit_output(layer.norm2, runtime, SitePoint(index, Site.NORM2)))
    return handles


def _edit_output(module: nn.Module, runtime: SiteRuntime, point: SitePoint) -> RemovableHandle:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            edited = runtime.edit(point, output[0])
            return None if edited is output[0] else (edited, *output[1:])
        edited = runtime.edit(point, output)
        return None if edited is output else edited

    return module.register_forward_hook(hook)


def _read_output(module: nn.Module, runtime: SiteRuntime, point: SitePoint) -> RemovableHandle:
    def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
        runtime.edit(point, output)

    return module.register_forward_hook(hook)


def _edit_input(module: nn.Module, runtime: SiteRuntime, point: SitePoint) -> RemovableHandle:
    def replace(hidden: Tensor) -> Tensor | None:
        edited = runtime.edit(point, hidden)
        return None if edited is hidden else edited

    return _register_on_input(module, replace)


def _edit_input_in_place(
    module: nn.Module, runtime: SiteRuntime, point: SitePoint
) -> RemovableHandle:
    def overwrite(hidden: Tensor) -> None:
        edited = runtime.edit(point, hidden)
        if edited is not hidden:
            hidden.copy_(edited)

    return _register_on_input(module, overwrite)


def _register_on_input(
    module: nn.Module, act: Callable[[Tensor], Tensor | None]
) -> RemovableHandle:
    """Hook the module's hidden states, however they are passed; None leaves them as they are."""

    def hook(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            new = act(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = act(kwargs["hidden_states"])
        return None if new is None else (args, {**kwargs, "hidden_states": new})

    return module.register_forward_pre_hook(hook, with_kwargs=True)
