"""The paged key/value cache of a loaded model, and the way each step reaches its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .schedule import ScheduledSequence, StepHolder
from .spec import AttentionSpec
from .static_step import StaticAttention, StaticPages, StaticSize, StaticTiles, room_for
from .tiled import TiledLayer, TilePlanner
from .varlen import VarlenLayer, VarlenPlanner


class PagedAttention:
    """Keys and values of every layer, in `num_blocks` blocks of `block_size` tokens.

    All tokens that a step runs are packed in one row, [1, T], sequence after sequence:

        attention.begin_step([ScheduledSequence(block_table, start, num_tokens), ...])
        model(input_ids=[1, T], position_ids=[1, T], use_cache=False, logits_to_keep=[S])

    The forward pass writes the tokens' keys and values at positions [start, start + num_tokens)
    of their sequences and lets each attend to its own sequence only, up to itself. Positions
    before `start` must have been written in earlier steps through the same block table. A
    sequence stands at most once in a step. Blocks need no clearing between owners.

    Each attention module gets an attribute `coxswain` that holds its layer of the cache, so two
    models in one process do not meet.

    Args:
        layers: Attention modules in the order of the forward pass, as `inspect_attention` found.
        num_blocks: Blocks of the cache; block ids are 0 to num_blocks - 1.
        block_size: Tokens in one block.

    Attributes:
        specs: What each layer asks for.
        caches: Keys and values of each layer.
    """

    def __init__(
        self,
        layers: Sequence[tuple[nn.Module, AttentionSpec]],
        num_blocks: int,
        block_size: int,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.specs = tuple(spec for _, spec in layers)
        self.caches: list[TiledLayer | VarlenLayer] = []
        self._beat: Callable[[], None] = lambda: None
        self._steps: list[
            tuple[StepHolder[Any], TilePlanner | VarlenPlanner, list[AttentionSpec]]
        ] = []
        places: dict[tuple[torch.device, bool], list[tuple[nn.Module, AttentionSpec]]] = {}
        for module, spec in layers:
            places.setdefault((spec.device, VarlenLayer.supports(spec)), []).append((module, spec))
        for (_, is_varlen), placed in places.items():
            self._add(placed, is_varlen)

    def begin_step(self, sequences: Sequence[ScheduledSequence]) -> None:
        """Set what the next forward pass runs, in the order of the pack.

        Costs some microseconds a sequence on the host; does not wait for the device.
        """
        for holder, planner, _ in self._steps:
            holder.step = planner.plan(sequences)

    def static_size(self, num_rows: int, num_blocks: int, most_blocks: int) -> StaticSize | None:
        """The size of a step of single tokens that can be captured; None where none can be.

        Args:
            num_rows: Sequences it is to have room for.
            num_blocks: Blocks that one of them needs now, at most.
            most_blocks: Blocks that any sequence may ever need.
        """
        planners = [planner for _, planner, _ in self._steps]
        if len({spec.device for spec in self.specs}) > 1:
            return None
        if any(isinstance(p, VarlenPlanner) and not p.can_be_static for p in planners):
            return None
        gathers = any(isinstance(p, TilePlanner) and not p.reads_pages for p in planners)
        room = room_for(num_blocks, most_blocks, reads_pages=not gathers)
        return StaticSize(num_rows, room, self.block_size, self.num_blocks)

    def static_step(self, size: StaticSize) -> StaticAttention:
        """A step of that size, for one capture."""
        parts: list[tuple[StepHolder[Any], StaticTiles | StaticPages]] = []
        for holder, planner, specs in self._steps:
            if isinstance(planner, TilePlanner) and not planner.reads_pages:
                parts.append((holder, StaticTiles(planner, specs, size)))
            else:
                parts.append((holder, StaticPages(planner, size)))
        return StaticAttention(parts)

    def clear(self) -> None:
        """Forget every key and value: after a fault that may have left a step half written."""
        for cache in self.caches:
            cache.keys.zero_()
            cache.values.zero_()
            self._beat()

    def report_progress(self, beat: Callable[[], None]) -> None:
        """Have `beat` called after every piece of work that may take long; it must be cheap."""
        self._beat = beat
        for holder, *_ in self._steps:
            holder.beat = beat

    def _add(self, layers: Sequence[tuple[nn.Module, AttentionSpec]], is_varlen: bool) -> None:
        specs = [spec for _, spec in layers]
        holder = StepHolder[Any]()
        kind = VarlenLayer if is_varlen else TiledLayer
        planner = VarlenPlanner if is_varlen else TilePlanner
        self._steps.append((holder, planner(specs, self.block_size), specs))
        for module, spec in layers:
            # One more, which no request is given: places left over in a captured step write there.
            cache = kind(spec, self.num_blocks + 1, self.block_size, holder)
            module.coxswain = cache  # type: ignore[assignment]
            self.caches.append(cache)


def paged_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object = None,
    s_aux: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """The attention function registered with transformers; the module's `coxswain` does it.

    What mask and keywords ask for was read and checked once, by `inspect_attention`; of them only
    `s_aux` [H], the scores of the heads' sinks, is a tensor that each call needs.
    """
    del attention_mask
    layer: Any = module.coxswain
    return layer(query, key, value) if s_aux is None else layer(query, key, value, s_aux), None
