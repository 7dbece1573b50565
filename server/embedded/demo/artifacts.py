"""What a run leaves behind: files that the same run writes again, byte for byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steering.directions import Direction
from steering.formats import dump_direction
from steering.interventions import DirectionRef
from steering.profiles import Monitor, Profile

from .criterion import Rates
from .demo import Demo
from .demos import DEMOS
from .report import report
from .run import FACTORS, Run
from .search import Search

__all__ = ["write"]


def write(run: Run, folder: Path) -> None:
    """Write `directions/`, `profiles.json`, `effects.json` and `EFFECTS.md`, replacing old ones."""
    directions = folder / "directions"
    if directions.exists():
        shutil.rmtree(directions)
    directions.mkdir(parents=True)
    origins = _origins(run)
    for name, direction in sorted(run.directions().items()):
        (directions / f"{name}.safetensors").write_bytes(dump_direction(direction))
        _write_json(directions / f"{name}.json", _metadata(direction, origins[name]))
    profiles = {demo.profile: _profile(run, demo).to_dict() for demo in DEMOS}
    _write_json(folder / "profiles.json", profiles)
    _write_json(folder / "effects.json", _figures(run))
    (folder / "EFFECTS.md").write_text(report(run), encoding="utf-8")


def _profile(run: Run, demo: Demo) -> Profile:
    return Profile(
        name=demo.profile,
        interventions=tuple(steer.intervention for steer in run.best(demo.profile).steers),
        monitors=tuple(Monitor(DirectionRef(name)) for name in demo.monitors),
        description=demo.description,
        requires=demo.requires,
        max_strength=FACTORS[-1],
    )


def _metadata(direction: Direction, origin: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_fingerprint": direction.model_fingerprint,
        "requires": list(direction.requires),
        "provenance": {**direction.provenance, **origin},
        "tags": ["demo"],
    }


def _origins(run: Run) -> dict[str, dict[str, Any]]:
    """Why each direction is of its layer."""
    return {
        steer.direction.name: {
            "chosen_for": demo.profile,
            "chosen_as": str(stages[-1].criterion),
            "validation": _rates(stages[-1].second.steered[stages[-1].chosen]),
            "unsteered": _rates(stages[-1].second.plain),
        }
        for demo in DEMOS
        for stages in [run.searches[demo.profile]]
        for steer in stages[-1].best.steers
    }


def _figures(run: Run) -> dict[str, Any]:
    return {
        "model_fingerprint": run.spec.fingerprint,
        "test": {name: _rates(rates) for name, rates in run.effects.items()},
        "strengths": {
            name: {str(f): _rates(rates) for f, rates in zip(FACTORS, by_factor, strict=True)}
            for name, by_factor in run.strengths.items()
        },
        "monitor": asdict(run.monitoring),
        "validation": {
            name: [_searched(run, stage) for stage in stages]
            for name, stages in run.searches.items()
        },
    }


def _searched(run: Run, stage: Search) -> dict[str, Any]:
    labels = [variant.label(run.spec) for variant in stage.variants]
    return {
        "criterion": str(stage.criterion),
        "chosen": labels[stage.chosen],
        "unsteered": _rates(stage.second.plain),
        "first_round": {labels[i]: _rates(rates) for i, rates in stage.first.steered.items()},
        "second_round": {labels[i]: _rates(rates) for i, rates in stage.second.steered.items()},
    }


def _rates(rates: Rates) -> dict[str, dict[str, Any]]:
    return {
        str(item): {
            "rate": round(rate.value, 4),
            "interval": [round(end, 4) for end in rate.interval],
            "n": rate.n,
        }
        for item, rate in rates.items()
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
