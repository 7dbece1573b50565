"""Attention sinks: tokens whose activations are outliers that an edit should leave alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from server.engine.request import Pooling
from steering.documents import Scope
from steering.model_spec import SINK_RATIO
from steering.sites import Site, SitePoint

from .instrument import Instrument, Prompts

_MAX_SINKS: Final = 8
_NUM_PROMPTS: Final = 8
_NUM_TOKENS: Final = 256
_NUM_LAYERS: Final = 8


@dataclass(frozen=True, slots=True)
class Sinks:
    """Absolute positions of attention sinks, which prompts of one chat template share.

    Attributes:
        positions: The positions, ascending.
        norm_ratios: How many times the prompt's median an activation there is long, by position.
    """

    positions: tuple[int, ...] = ()
    norm_ratios: tuple[float, ...] = ()

    def outside(self, scope: Scope) -> Scope:
        """Return the scope without the sinks."""
        if not self.positions:
            return scope
        document = scope.to_dict()
        excluded = document.get("exclude", {})
        windows = [*excluded.get("windows", ()), *([p, p + 1] for p in self.positions)]
        return Scope.from_dict({**document, "exclude": {**excluded, "windows": windows}})

    def document(self) -> dict[str, Any]:
        """Return what a receipt says of them."""
        return {
            "positions": list(self.positions),
            "norm_ratios": [round(ratio, 1) for ratio in self.norm_ratios],
        }


async def find_sinks(instrument: Instrument, prompts: Prompts, num_layers: int) -> Sinks:
    """Find positions whose residual norm is over eight times the median of their prompt.

    They are so at one of eight layers spread over the depth, in at least half of the prompts that
    are as long. Looked at are the first 256 tokens of up to eight prompts; the positions of the
    eight largest ratios are returned. A sink is mostly the first token of a sequence, whatever it
    is, with a norm of tens to hundreds of medians.

    Source: Sun et al. 2024, arXiv:2402.17762 (massive activations); Xiao et al. 2023,
        arXiv:2309.17453 (attention sinks).
    """
    looked_at = prompts[:: max(1, len(prompts) // _NUM_PROMPTS)][:_NUM_PROMPTS]
    layers = range(0, num_layers, max(1, num_layers // _NUM_LAYERS))
    found = await instrument.capture(
        looked_at,
        [SitePoint(layer, Site.RESID_PRE) for layer in layers],
        pooling=Pooling.ALL,
        windows=[(0, min(len(prompt), _NUM_TOKENS)) for prompt in looked_at],
    )
    by_prompt = [
        torch.stack([_norm_ratios(rows[number]) for rows in found.sequences.values()]).amax(dim=0)
        for number in range(len(looked_at))
    ]
    ratios = {}
    for position in range(max(map(len, by_prompt))):
        here = torch.stack([row[position] for row in by_prompt if len(row) > position])
        if float((here > SINK_RATIO).double().mean()) >= 0.5 and len(here) * 2 >= len(by_prompt):
            ratios[position] = float(here.median())
    largest = sorted(ratios, key=lambda position: -ratios[position])[:_MAX_SINKS]
    positions = tuple(sorted(largest))
    return Sinks(positions, tuple(ratios[position] for position in positions))


def _norm_ratios(rows: Tensor) -> Tensor:
    """Return the lengths of rows [T, d] in medians of them, [T]."""
    norms: Tensor = rows.float().norm(dim=-1)
    return norms / norms.median()
