"""The mean length of an activation at every site (strength unit `resid`), on plain prose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
import torch
from torch import Tensor

from server.engine.errors import ModelLoadError
from server.engine.text import Tokenizer
from steering.hooks import hooked_point, install_hooks
from steering.layout import Layout
from steering.model_spec import SINK_RATIO
from steering.sites import Site, SitePoint, sole_layer

_log = structlog.get_logger(__name__)

NEUTRAL_TEXTS: Final = (
    "The river rises in the hills to the north and runs for about forty miles before it reaches "
    "the sea. Along the way it passes two small towns, a mill that no longer works, and a long "
    "stretch of flat farmland where little has changed for a hundred years.",
    "Most bread is made from four things: flour, water, salt and yeast. The dough is mixed, left "
    "to rest, shaped and baked. How long each step takes depends on the warmth of the room, the "
    "kind of flour and the taste of whoever is going to eat it.",
    "A library lends books, but it also keeps records. Each card in the old catalogue gave the "
    "title, the name of the author, the year of printing and the shelf on which the book stood. "
    "Today the same facts are held by a computer and can be searched from anywhere.",
    "Trains leave the central station every twenty minutes during the day and once an hour after "
    "nine in the evening. The journey to the coast takes a little under two hours, with a short "
    "stop at the junction where passengers change for the lines to the west.",
    "Clouds form when warm air rises and cools. The water in it gathers on tiny specks of dust, "
    "and when the drops grow heavy enough they fall as rain. In winter the same process gives "
    "snow, and on some clear nights a thin layer of frost on the grass.",
    "The meeting will begin at ten and should last about an hour. First we will go through the "
    "notes from last month, then look at the plans for the new building, and at the end there "
    "will be time for questions. Please bring the list of names that was sent out on Monday.",
)
"""Six paragraphs, each measured on its own."""

_FIRST_TOKENS: Final = 4


def neutral_tokens(tokenizer: Tokenizer, vocab_size: int) -> list[Sequence[int]]:
    """Token ids of the neutral texts, which show on the way that tokenizer and model go together.

    Args:
        tokenizer: The checkpoint's.
        vocab_size: Token ids the model has embeddings for.

    Raises:
        ModelLoadError: Text gives no tokens, always the same one, or tokens the model has not.
    """
    texts = [tokenizer.encode(text) for text in NEUTRAL_TEXTS]
    opening = len(tokenizer.encode(""))
    if len({token_id for ids in texts for token_id in ids[opening:]}) < 2:
        raise ModelLoadError(
            "the tokenizer gives no tokens for English prose, or always the same one; give the "
            "tokenizer.json that belongs to the model",
            param="model",
        )
    beyond = tokenizer.spellings_from(vocab_size)
    ordinary = [spelling for spelling, is_added in beyond.items() if not is_added]
    if ordinary:
        raise ModelLoadError(
            f"the tokenizer has {len(ordinary)} tokens, such as {ordinary[0]!r}, with ids from "
            f"{vocab_size} on, for which the model has no embedding; give the tokenizer.json that "
            "belongs to the model",
            param="model",
        )
    if beyond:
        _log.warning(
            "tokens_without_embedding",
            count=len(beyond),
            example=next(iter(beyond)),
            message="the tokenizer has added them; prompts with them are refused",
        )
    ends: frozenset[Any] = tokenizer.end_token_ids
    if strange := [end for end in ends if not isinstance(end, int)]:
        raise ModelLoadError(
            f"eos_token_id of generation_config.json holds {strange[0]!r}; expected token ids",
            param="model",
        )
    if not any(end < vocab_size for end in ends):
        _log.warning("no_end_token", message="answers run until max_tokens or a stop string")
    return [tuple(ids) for ids in texts]


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
    return float(kept[kept <= SINK_RATIO * kept.median()].mean())


def _points(layout: Layout) -> list[SitePoint]:
    return [
        SitePoint(layer, site)
        for layer in range(layout.num_layers)
        for site in Site
        if layout.has_site(site) and sole_layer(site, layout.num_layers) in (None, layer)
    ]
