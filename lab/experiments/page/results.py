"""Results as files: one for each experiment and training seed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""By experiment and training seed, ascending."""

FOLDER: Final = "experiments"
"""Below the folder written to; beside it stands the page."""

_NAME: Final = re.compile(r"([a-z]+)-seed(\d+)\.json")


def path_of(out: Path, name: str, training_seed: int) -> Path:
    """The file of one experiment's result with one training seed."""
    return out / FOLDER / f"{name}-seed{training_seed}.json"


def write(out: Path, name: str, result: Mapping[str, Any]) -> None:
    """Write a result, whose `training_seed` is part of its file's name."""
    path = path_of(out, name, result["training_seed"])
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def load(*folders: Path) -> Results:
    """Everything kept in folders; those named later win."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for folder in folders:
        for path in sorted((folder / FOLDER).glob("*.json")):
            match = _NAME.fullmatch(path.name)
            if match is not None:
                result = json.loads(path.read_text(encoding="utf-8"))
                found.setdefault(match[1], {})[int(match[2])] = result
    return {name: dict(sorted(by_seed.items())) for name, by_seed in sorted(found.items())}
