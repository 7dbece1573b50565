"""What a run leaves behind: directions, profiles, and everything that was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from coxswain_client import Coxswain

from .concepts import intervention
from .search import Dose, Found

EFFECTS: Final = "effects.json"
PROFILES: Final = "profiles.json"


def write(client: Coxswain, found: Found, folder: Path) -> None:
    """Write what was found for one style; a folder's other styles stay as they are."""
    directions = folder / "directions"
    directions.mkdir(parents=True, exist_ok=True)
    name = found.concept.name
    server = client.capabilities()["model"]
    effects = _read(folder / EFFECTS)
    effects["model"] = {key: server[key] for key in ("name", "fingerprint", "dtype")}
    effects.setdefault("styles", {})[name] = figures(found)
    write_json(folder / EFFECTS, effects)
    profiles = _read(folder / PROFILES)
    profiles.pop(name, None)
    for path in directions.glob(f"{name}.*"):
        path.unlink()
    if found.chosen is not None:
        profiles[name] = _profile(found, found.chosen)
        stored = client.directions.get(name)
        (directions / f"{name}.safetensors").write_bytes(client.directions.tensors(name))
        provenance = {k: v for k, v in stored.provenance.items() if k != "receipt"}
        write_json(
            directions / f"{name}.json",
            {
                "model_fingerprint": server["fingerprint"],
                "provenance": provenance,
                "tags": ["demo"],
            },
        )
    write_json(folder / PROFILES, profiles)


def figures(found: Found) -> dict[str, Any]:
    """Everything measured for a style, as JSON."""
    return {
        "unsteered": asdict(found.unsteered),
        "doses": [
            {
                "layers": [dose.layers[0], dose.layers[-1]],
                "strength": dose.strength,
                "is_chosen": dose is found.chosen,
                **asdict(dose.figures),
            }
            for dose in found.doses
        ],
        "test": {condition: asdict(item) for condition, item in found.test.items()},
        "samples": {
            condition: [{"prompt": a.prompt, "answer": a.text} for a in answers]
            for condition, answers in found.samples.items()
        },
    }


def _profile(found: Found, chosen: Dose) -> dict[str, Any]:
    """The profile's document; `max_strength` leads to the largest dose that stays fluent."""
    largest = max(
        dose.strength
        for dose in found.doses
        if dose.layers == chosen.layers and dose.keeps(found.unsteered)
    )
    return {
        "description": found.concept.description,
        "interventions": [intervention(found.concept.name, chosen.layers, chosen.strength)],
        "max_strength": max(1.0, math.floor(100 * largest / chosen.strength) / 100),
    }


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return document


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """A document with its keys in order, so that equal ones are equal files."""
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
