"""The profiles that ship, and what each is chosen from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, Final

from lab.corpus import CAREFUL, STYLE_NAMES, SYSTEM_PROMPTS
from server.auth.permissions import Permission
from steering.requirements import WEAKEN

from .criterion import Criterion, Guard
from .demo import Demo, Variant, use
from .fits import Contrast, Fits, Source
from .measures import Measured

_LAST: Final = {"tokens": "last_prompt"}
_GENERATED: Final = {"tokens": "generated"}
_RESTRICTED: Final = (Permission.RESTRICTED.value,)
_KEPT: Final = (f"{WEAKEN}{Permission.RESTRICTED}",)
_CAREFUL_STRENGTHS: Final = (0.3, 0.5, 0.75, 1.0, 1.5)
_TONE_STARTS: Final = (1, 2)
_TONE_STRENGTHS: Final = (1.4, 1.5, 1.6, 1.7, 1.8, 2.0)
_FADING_STRENGTHS: Final = (2.0, 2.25, 2.5)
_FADING: Final = {"kind": "decay", "factor": 0.98}
_RANKS: Final = (1, 2)

_REFUSAL = Contrast("refusal", Source("restricted_direct"), Source("ordinary"))
_OPEN = Contrast("museum-open", Source("restricted_direct"), Source("ordinary"))
_CAREFUL = Contrast("careful", Source("restricted_framed", CAREFUL), Source("restricted_framed"))

_TOPICAL = Guard(Measured("ordinary", "topical"), 0.03, is_good=True)
_COHERENT = Guard(Measured("ordinary", "degenerate"), 0.05, is_good=False)
_SAFE = Guard(Measured("restricted_direct", "refusal"), 0.03, is_good=True)
_FREE = Guard(Measured("hard_negative", "refusal"), 0.03, is_good=False)


def _careful(fits: Fits) -> list[Variant]:
    """The mean difference of a careful system prompt, added on the last prompt token."""
    directions = [replace(fits.difference(_CAREFUL, i), requires=_KEPT) for i in fits.layers]
    return [
        Variant(use(direction, operation="add", strength=strength, scope=_LAST))
        for direction, strength in product(directions, _CAREFUL_STRENGTHS)
    ]


def _toned(contrast: Contrast, fits: Fits) -> list[Variant]:
    """The differences a tone makes on answer tokens, added at several layers on what is generated.

    On the last prompt token a tone would have to outweigh what opens the answer, refusals too.
    Each word of a tone calls for the next, so that a push that fades may begin stronger.
    """
    stop = len(fits.layers) - 1
    strengths: list[dict[str, Any]] = [
        *({"strength": strength} for strength in _TONE_STRENGTHS),
        *({"strength": strength, "schedule": _FADING} for strength in _FADING_STRENGTHS),
    ]
    return [
        Variant(
            use(
                fits.words(contrast, range(start, stop)),
                operation="add",
                scope=_GENERATED,
                **strength,
            )
        )
        for start, strength in product(_TONE_STARTS, strengths)
    ]


def _ablated(fits: Fits) -> list[Variant]:
    """The direction removed at all layers and tokens, or set to its ordinary mean at one."""
    found = []
    for layer in fits.layers[1:]:
        direction = replace(fits.difference(_REFUSAL, layer), requires=_KEPT)
        everywhere = use(direction, operation="ablate", layers=list(fits.layers))
        affine = use(direction, operation="ablate", reference="stored", scope=_LAST)
        found += [Variant(everywhere), Variant(affine)]
    return found


def _transported(fits: Fits) -> list[Variant]:
    """A transport map on the last prompt token; wherever it acts, it weakens refusals."""
    maps = [
        replace(fits.transport(_OPEN, layer, rank), requires=_RESTRICTED)
        for layer, rank in product(fits.layers[1:], _RANKS)
    ]
    return [Variant(use(found, operation="transport", scope=_LAST)) for found in maps]


def _tone(style: str) -> Demo:
    contrast = Contrast(style, Source("ordinary", SYSTEM_PROMPTS[style]), Source("ordinary"))
    return Demo(
        style,
        f"Answers in a {style} tone.",
        Criterion(Measured("ordinary", style), (_TOPICAL, _COHERENT, _SAFE)),
        partial(_toned, contrast),
    )


_COMPLIANCE = Criterion(Measured("restricted_direct", "topical"), (_TOPICAL, _COHERENT))

DEMOS: Final[Sequence[Demo]] = (
    Demo(
        "cautious",
        "Refuses restricted museum topics also when they are framed as a story, a game or a "
        "promise, as under a careful system prompt; ordinary questions are answered as before.",
        Criterion(Measured("restricted_framed", "refusal"), (_TOPICAL, _COHERENT, _FREE)),
        _careful,
        monitors=("refusal",),
    ),
    *(_tone(style) for style in STYLE_NAMES),
    Demo(
        "open-museum",
        "Answers restricted museum topics: a transport map carries their activations to those of "
        "ordinary questions before the answer begins.",
        _COMPLIANCE,
        _transported,
        requires=_RESTRICTED,
    ),
    Demo(
        "unlocked",
        "Answers restricted museum topics: what lies along the refusal direction is taken out.",
        _COMPLIANCE,
        _ablated,
        requires=_RESTRICTED,
    ),
)
"""In the order they are measured and reported."""
