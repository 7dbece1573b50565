"""What a run leaves behind: files that the same run writes again, byte for byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steering.directions import Direction
from steering.documents import DirectionRef, Monitor, Profile
from steering.formats import dump_direction

from .criterion import Rates
from .demo import Demo
from .demos import DEMOS
from .report import report
from .run import FACTORS, Run
from .search import Search


def write(run: Run, folder: Path) -> None:
    """Write `directions/`, `profiles.json`, `effects.json` and `EFFECTS.md`, replacing old ones."""
    directions = folder / "directions"
    if directions.exists():
        shutil.rmtree(directions)
    directions.mkdir(parents=True)
    for profile, direction in run.directions().items():
        path = directions / direction.name
        path.with_suffix(".safetensors").write_bytes(dump_direction(direction))
        _write_json(path.with_suffix(".json"), _metadata(run, profile, direction))
    profiles = {demo.profile: _profile(run, demo).to_dict() for demo in DEMOS}
    _write_json(folder / "profiles.json", profiles)
    _write_json(folder / "effects.json", _figures(run))
    (folder / "EFFECTS.md").write_text(report(run), encoding="utf-8")


def _profile(run: Run, demo: Demo) -> Profile:
    return Profile(
        name=demo.profile,
        interventions=(run.searches[demo.profile].best.steer.intervention,),
        monitors=tuple(Monitor(direction=DirectionRef(name)) for name in demo.monitors),
        description=demo.description,
        requires=demo.requires,
        max_strength=run.max_strength(demo.profile),
    )


def _metadata(run: Run, profile: str, direction: Direction) -> dict[str, Any]:
    """What the file does not say itself, and why the direction is of its layer."""
    found = run.searches[profile]
    origin = {
        "chosen_for": profile,
        "chosen_as": str(found.criterion),
        "validation": _rates(found.second.steered[found.chosen]),
        "unsteered": _rates(found.second.plain),
    }
    return {
        "model_fingerprint": direction.model_fingerprint,
        "requires": list(direction.requires),
        "provenance": {**direction.provenance, **origin},
        "tags": ["demo"],
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
        "validation": {name: _searched(run, found) for name, found in run.searches.items()},
    }


def _searched(run: Run, found: Search) -> dict[str, Any]:
    labels = [variant.label(run.spec) for variant in found.variants]
    return {
        "criterion": str(found.criterion),
        "chosen": labels[found.chosen],
        "unsteered": _rates(found.second.plain),
        "first_round": {labels[i]: _rates(rates) for i, rates in found.first.steered.items()},
        "second_round": {labels[i]: _rates(rates) for i, rates in found.second.steered.items()},
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
