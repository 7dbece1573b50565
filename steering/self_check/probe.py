"""One forward with known shifts put in at chosen sites, and what was seen on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from steering.errors import SelfCheckError
from steering.hooks import hooked_point, install_hooks
from steering.layout import Layout
from steering.sites import SitePoint


class WatchedInput(StrEnum):
    """An input read by a hook of its own, so that it tells what really arrives."""

    BLOCK = "input of the layer"
    ATTN = "input of attention"
    MLP = "input of the MLP"


@dataclass(frozen=True, eq=False)
class Probe:
    """A shift of one token at one point.

    Attributes:
        point: The point at which it is added.
        row: Index of the token it is added to.
        delta: [d] float32: what is added, before rounding to the model's dtype.
    """

    point: SitePoint
    row: int
    delta: Tensor


@dataclass(frozen=True, eq=False)
class Trace:
    """What one forward showed, in the model's dtype; every tensor is [tokens, d].

    Attributes:
        seen: The activation that each hook was shown, before any probe.
        edited: The activation that each hook gave back, for points where a probe acted.
        watched: The inputs of layers, attentions and MLPs, read by hooks of their own.
    """

    seen: Mapping[SitePoint, Tensor]
    edited: Mapping[SitePoint, Tensor]
    watched: Mapping[tuple[int, WatchedInput], Tensor]

    def before(self, point: SitePoint) -> Tensor:
        """The activation at `point` before its probe."""
        hidden = self.seen.get(hooked_point(point))
        if hidden is None:
            raise SelfCheckError(
                f"self-check: the forward never reached {point.site.value!r} of layer "
                f"{point.layer}; expected its module to be called once"
            )
        return hidden

    def after(self, point: SitePoint) -> Tensor:
        """The activation at `point` after its probe, if it had one."""
        edited = self.edited.get(hooked_point(point))
        return self.before(point) if edited is None else edited


@torch.inference_mode()
def trace_forward(
    layout: Layout,
    forward: Callable[[Tensor], object],
    token_ids: Tensor,
    probes: Sequence[Probe] = (),
) -> Trace:
    """Run `forward` on `token_ids` with hooks for this one call.

    Args:
        layout: The map under test.
        forward: Runs the model on token ids [1, tokens], as one causal sequence without a cache.
        token_ids: [1, tokens] int64.
        probes: Shifts to put in.

    Raises:
        SelfCheckError: A hooked module was called more than once.
    """
    recorder = _Recorder(probes)
    handles = install_hooks(layout, recorder)
    # after the site hooks, so that each sees what its module is really given
    watched: dict[tuple[int, WatchedInput], Tensor] = {}
    watches = [
        module.register_forward_pre_hook(_watch(watched, (index, name)), with_kwargs=True)
        for index, layer in enumerate(layout.layers)
        for name, module in (
            (WatchedInput.BLOCK, layer.block),
            (WatchedInput.ATTN, layer.attn),
            (WatchedInput.MLP, layer.mlp_first),
        )
    ]
    try:
        forward(token_ids)
    finally:
        handles.remove()
        for watch in watches:
            watch.remove()
    if recorder.repeated is not None:
        layer, site = recorder.repeated
        raise SelfCheckError(
            f"self-check: the module at {site.value!r} of layer {layer} was called more than once "
            "in a forward; expected each site to be computed once"
        )
    return Trace(recorder.seen, recorder.edited, watched)


class _Recorder:
    """A runtime that copies what it is shown and adds the probes."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes: dict[SitePoint, list[Probe]] = {}
        for probe in probes:
            self._probes.setdefault(hooked_point(probe.point), []).append(probe)
        self.seen: dict[SitePoint, Tensor] = {}
        self.edited: dict[SitePoint, Tensor] = {}
        self.repeated: SitePoint | None = None

    def edit(self, point: SitePoint, hidden: Tensor) -> Tensor:
        if point in self.seen:
            self.repeated = point
        self.seen[point] = _copy(hidden)
        if point not in self._probes:
            return hidden
        edited = _copy(hidden)
        for probe in self._probes[point]:
            edited[probe.row] += probe.delta.to(edited.device)
        self.edited[point] = edited
        return edited.clone().view_as(hidden)


def _watch(
    watched: dict[tuple[int, WatchedInput], Tensor], key: tuple[int, WatchedInput]
) -> Callable[..., None]:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
        watched[key] = _copy(args[0] if args else kwargs["hidden_states"])

    return hook


def _copy(hidden: Tensor) -> Tensor:
    return hidden.detach().flatten(0, -2).clone()
