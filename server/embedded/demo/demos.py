"""The profiles that ship, and what each is chosen from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Final

from server.auth import KeyScope
from server.embedded.corpus import CAREFUL, STYLE_NAMES, SYSTEM_PROMPTS
from steering.compile_plan import Steer

from .criterion import Criterion, Guard
from .demo import Demo, Stage
from .fits import Contrast, Fits, Source
from .measures import Measured
from .variant import Variant, use

__all__ = ["DEMOS"]

_LAST: Final = {"tokens": "last_prompt"}
_GENERATED: Final = {"tokens": "generated"}
_CAREFUL_STRENGTHS: Final = (0.5, 1.0, 1.5)
_OPENER_STRENGTHS: Final = (1.0, 1.5, 2.0)
_WORD_STRENGTHS: Final = (1.75, 2.0, 2.25, 2.5)
_WORD_STARTS: Final = (1, 2)
_RANKS: Final = (1, 2)
_RESTRICTED: Final = (KeyScope.RESTRICTED.value,)

_REFUSAL = Contrast("refusal", Source("restricted_direct"), Source("ordinary"))
_OPEN = Contrast("museum-open", Source("restricted_direct"), Source("ordinary"))
_CAREFUL = Contrast("careful", Source("restricted_framed", CAREFUL), Source("restricted_framed"))

_TOPICAL = Guard(Measured("ordinary", "topical"), 0.05, is_good=True)
_COHERENT = Guard(Measured("ordinary", "degenerate"), 0.05, is_good=False)
_SAFE = Guard(Measured("restricted_direct", "refusal"), 0.05, is_good=True)
_FREE = Guard(Measured("hard_negative", "refusal"), 0.05, is_good=False)


def _added(
    contrast: Contrast, layers: range, strengths: Sequence[float], fits: Fits
) -> list[Steer]:
    """Its mean difference, added on the last prompt token."""
    return [
        use(fits.difference(contrast, layer), operation="add", strength=s, scope=_LAST)
        for layer, s in product(layers, strengths)
    ]


def _careful(fits: Fits, _: Variant) -> list[Variant]:
    steers = _added(_CAREFUL, fits.layers, _CAREFUL_STRENGTHS, fits)
    return [Variant((steer,)) for steer in steers]


def _opened(contrast: Contrast, fits: Fits, _: Variant) -> list[Variant]:
    """Nothing, or the tone's mean difference at one of the last two layers.

    Earlier, no strength that leaves the text whole has an effect.
    """
    steers = _added(contrast, fits.layers[-2:], _OPENER_STRENGTHS, fits)
    return [Variant(), *(Variant((steer,)) for steer in steers)]


def _worded(contrast: Contrast, fits: Fits, opener: Variant) -> list[Variant]:
    """The opener, with the differences on answer tokens added on what is generated, or alone.

    They act at several layers, up to the last but one, as a system prompt does.
    """
    stop = len(fits.layers) - 1
    words = [
        use(fits.words(contrast, range(start, stop)), operation="add", strength=s, scope=_GENERATED)
        for start, s in product(_WORD_STARTS, _WORD_STRENGTHS)
    ]
    worded = [Variant((*opener.steers, steer)) for steer in words]
    return [opener, *worded] if opener.steers else worded


def _ablated(fits: Fits, _: Variant) -> list[Variant]:
    """The direction removed at all layers and tokens, or set to its ordinary mean at one."""
    found = []
    for layer in fits.layers[1:]:
        direction = fits.difference(_REFUSAL, layer)
        everywhere = use(direction, operation="ablate", layers=list(fits.layers))
        affine = use(direction, operation="ablate", reference="stored", scope=_LAST)
        found += [Variant((everywhere,)), Variant((affine,))]
    return found


def _transported(fits: Fits, _: Variant) -> list[Variant]:
    """A transport map on the last prompt token; wherever it acts, it weakens refusals."""
    maps = [
        replace(fits.transport(_OPEN, layer, rank), requires=_RESTRICTED)
        for layer, rank in product(fits.layers[1:], _RANKS)
    ]
    return [Variant((use(found, operation="transport", scope=_LAST),)) for found in maps]


def _tone(style: str) -> Demo:
    system = SYSTEM_PROMPTS[style]
    contrast = Contrast(style, Source("ordinary", system), Source("ordinary"))
    guards = (_TOPICAL, _COHERENT, _SAFE)
    opener = Criterion(Measured("ordinary", style), guards)
    words = Criterion(Measured("ordinary", f"very {style}"), guards)
    return Demo(
        style,
        f"Answers in a {style} tone: an opener decided on the last prompt token, and a push "
        "towards its words while the answer is written.",
        (
            Stage(opener, partial(_opened, contrast)),
            Stage(words, partial(_worded, contrast)),
        ),
    )


_COMPLIANCE = Criterion(Measured("restricted_direct", "topical"), (_TOPICAL, _COHERENT))

DEMOS: Final[Sequence[Demo]] = (
    Demo(
        "cautious",
        "Refuses restricted museum topics also when they are framed as a story, a game or a "
        "promise, as under a careful system prompt; ordinary questions are answered as before.",
        (
            Stage(
                Criterion(Measured("restricted_framed", "refusal"), (_TOPICAL, _COHERENT, _FREE)),
                _careful,
            ),
        ),
        monitors=("refusal",),
    ),
    *(_tone(style) for style in STYLE_NAMES),
    Demo(
        "open-museum",
        "Answers restricted museum topics: a transport map carries their activations to those of "
        "ordinary questions before the answer begins.",
        (Stage(_COMPLIANCE, _transported),),
        requires=_RESTRICTED,
    ),
    Demo(
        "unlocked",
        "Answers restricted museum topics: what lies along the refusal direction is taken out.",
        (Stage(_COMPLIANCE, _ablated),),
        requires=_RESTRICTED,
    ),
)
"""In the order they are measured and reported."""
