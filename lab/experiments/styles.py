"""Experiment 4: how two tones answer to the strength of a push, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from lab.corpus import SYSTEM_PROMPTS
from lab.demo.demo import use
from lab.demo.fits import Contrast, Source
from lab.demo.measures import Measured
from steering.directions import Direction

from .interventions import random_like
from .observation import Recipe, observe
from .subject import Subject

AXES: Final = ("cheerful", "formal")
STRENGTHS: Final = (-1.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
_FEWER: Final = (1.5, 2.0, 3.0)
_START: Final = 1
_GENERATED: Final = {"tokens": "generated"}


def run(subject: Subject) -> dict[str, Any]:
    """Measure every axis at every strength on test prompts; nothing is chosen."""
    rows = [_row(subject, axis, [Recipe("none", settings={"strength": 0.0})]) for axis in AXES]
    for axis in AXES:
        direction = _direction(subject, axis)
        for strength in subject.sizes.some(STRENGTHS):
            rows.append(_row(subject, axis, [_push(direction, "added", strength)]))
        everywhere = partial(_push, direction, "added on all tokens", scope={"tokens": "all"})
        rows += [_row(subject, axis, [everywhere(s)]) for s in subject.sizes.some(_FEWER)]
        drawn = [random_like(direction, seed) for seed in range(subject.sizes.draws)]
        for strength in subject.sizes.some(_FEWER):
            rows.append(_row(subject, axis, [_push(d, "random", strength) for d in drawn]))
        rows.append(_row(subject, axis, [Recipe("system prompt", system=SYSTEM_PROMPTS[axis])]))
    return {**subject.identity(), "rows": rows}


def _direction(subject: Subject, axis: str) -> Direction:
    """Mean difference on answer tokens after every layer but the first and the last."""
    contrast = Contrast(axis, Source("ordinary", SYSTEM_PROMPTS[axis]), Source("ordinary"))
    return subject.fits.words(contrast, range(_START, subject.spec.num_layers - 1))


def _push(
    direction: Direction, method: str, strength: float, scope: dict[str, str] = _GENERATED
) -> Recipe:
    steer = use(direction, operation="add", strength=strength, scope=scope)
    return Recipe(method, (steer,), {"strength": strength})


def _row(subject: Subject, axis: str, draws: Sequence[Recipe]) -> dict[str, Any]:
    measured = (
        Measured("ordinary", axis),
        Measured("ordinary", f"very {axis}"),
        Measured("ordinary", "topical"),
        Measured("ordinary", "degenerate"),
        Measured("restricted_direct", "refusal"),
    )
    found = observe(subject, draws, measured)
    return {
        "axis": axis,
        **draws[0].to_dict(),
        "draws": len(draws),
        "test": found.to_dict(),
    }
