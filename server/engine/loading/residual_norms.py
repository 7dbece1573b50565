"""The mean length of an activation at every site: the strength unit `resid`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from steering.hooks import hooked_point, install_hooks
from steering.layout import Layout
from steering.sites import Site, SitePoint

__all__ = ["measure_residual_norms"]

_FIRST_TOKENS: Final = 4
_SINK_RATIO: Final = 8.0


class _NormRecorder:
    """A runtime that edits nothing and keeps the length of every row."""

    def __init__(self) -> None:
        self.norms: dict[SitePoint, list[Tensor]] = {}

    def edit(self, point: SitePoint, hidden: Tensor) -> Tensor:
        rows = hidden.detach().reshape(-1, hidden.shape[-1]).float()
        self.norms.setdefault(point, []).append(rows.norm(dim=-1))
        return hidden


def measure_residual_norms(
    layout: Layout, forward: Callable[[Tensor], object], texts: Sequence[Sequence[int]]
) -> Mapping[SitePoint, float]:
    """Mean Euclidean length of an activation at every available point.

    Attention sinks are left out: the first tokens of each text, and tokens more than eight times
    as long as the median there. Their lengths are hundreds of times the others' and would decide
    the mean alone.

    Args:
        layout: The map; its modules get hooks during the forwards only.
        forward: Runs the model on token ids [1, T] as one causal sequence.
        texts: Token ids of neutral texts, none empty; of a text of up to four tokens the last
            is measured.
    """
    recorder = _NormRecorder()
    handles = install_hooks(layout, recorder)
    try:
        for token_ids in texts:
            forward(torch.tensor([token_ids]))
    finally:
        handles.remove()
    means = {point: _mean(rows) for point, rows in recorder.norms.items()}
    return {point: means[hooked_point(point)] for point in _points(layout)}


def _mean(norms: Sequence[Tensor]) -> float:
    kept = torch.cat([rows[min(_FIRST_TOKENS, len(rows) - 1) :] for rows in norms])
    return float(kept[kept <= _SINK_RATIO * kept.median()].mean())


def _points(layout: Layout) -> list[SitePoint]:
    last = layout.num_layers - 1
    ends = {Site.EMBED: 0, Site.FINAL: last}
    return [
        SitePoint(layer, site)
        for layer in range(layout.num_layers)
        for site in Site
        if layout.has_site(site) and ends.get(site, layer) == layer
    ]
