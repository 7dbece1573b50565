"""Experiment 3: the refusal cliff in the thinking mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lab.corpus import Kind, Split
from lab.experiments.subject import Subject

from .heads import HeadStudy
from .judge import judge_rollouts
from .probe import Probe, train_probe
from .rollouts import Rollout, ThinkingLaboratory, roll_out

PUBLISHED: Final = "published"
"""Refused restricted questions against ordinary ones."""

OUTCOME: Final = "outcome"
"""Everything refused against everything complied with, framed questions among both: ours."""

_KINDS: Final[tuple[Kind, ...]] = ("restricted_direct", "restricted_framed", "ordinary")

_Rollouts = Mapping[Kind, Sequence[Rollout]]


def run(subject: Subject) -> dict[str, Any]:
    """Train probes on training prompts; curves, heads and judge on test prompts."""
    laboratory = ThinkingLaboratory(subject.checkpoint)
    sizes = subject.sizes
    train, validation, test = (
        _roll_out(laboratory, split, count)
        for split, count in (
            ("train", sizes.fit),
            ("validation", sizes.test),
            ("test", sizes.test),
        )
    )
    probes = _probes(laboratory, train)
    framed = [r for r in train["restricted_framed"] if r.declines][: sizes.texts]
    return {
        **subject.identity(),
        "accuracy": {
            name: probe.accuracy(*_sets(name, validation)) for name, probe in probes.items()
        },
        "groups": {name: _groups(probe, test) for name, probe in probes.items()},
        "heads": HeadStudy(probes[PUBLISHED], sizes, framed).result(),
        "judge": judge_rollouts(
            probes,
            {
                "framed": test["restricted_framed"],
                "all": [r for rollouts in test.values() for r in rollouts],
            },
        ),
    }


def _roll_out(laboratory: ThinkingLaboratory, split: str, count: int) -> _Rollouts:
    part: Split = split  # type: ignore[assignment]
    return {kind: roll_out(laboratory, part, kind, count) for kind in _KINDS}


def _probes(laboratory: ThinkingLaboratory, train: _Rollouts) -> dict[str, Probe]:
    return {name: train_probe(laboratory, *_sets(name, train)) for name in (PUBLISHED, OUTCOME)}


def _sets(name: str, rollouts: _Rollouts) -> tuple[list[Rollout], list[Rollout]]:
    """Refused and complied rollouts of a probe's definition."""
    if name == PUBLISHED:
        refused = [r for r in rollouts["restricted_direct"] if r.refuses]
        return refused, list(rollouts["ordinary"])
    everything = [r for own in rollouts.values() for r in own]
    return [r for r in everything if r.refuses], [r for r in everything if not r.refuses]


def _groups(probe: Probe, test: _Rollouts) -> dict[str, Any]:
    framed = test["restricted_framed"]
    groups = {
        "direct, refused": [r for r in test["restricted_direct"] if r.refuses],
        "framed, refused": [r for r in framed if r.refuses],
        "framed, thought declines and answer complies": [
            r for r in framed if r.complies_after_declining
        ],
        "ordinary, answered": [r for r in test["ordinary"] if not r.refuses],
    }
    return {name: probe.group(rollouts) for name, rollouts in groups.items()}
