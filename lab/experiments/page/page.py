"""`docs/experiments.md` and its figures, made of results, which are files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any, Final

from . import cliff, rosi, styles, transport

__all__ = [
    "FOLDER",
    "PAGE",
    "Results",
    "load",
    "path_of",
    "render",
    "write",
    "write_page",
]


Results = Mapping[str, Mapping[int, Mapping[str, Any]]]

"""By experiment and training seed, ascending."""

FOLDER: Final = "experiments"

"""Below the folder written to; beside it stands the page."""

_NAME: Final = re.compile(r"([a-z]+)-seed(\d+)\.json")


def path_of(out: Path, name: str, training_seed: int) -> Path:
    """Where a result is kept."""
    return out / FOLDER / f"{name}-seed{training_seed}.json"


def write(out: Path, name: str, result: Mapping[str, Any]) -> None:
    """Keep a result."""
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


PAGE: Final = "experiments.md"

_TEMPLATES: Final = Path(__file__).parent

_BySeed = Mapping[int, Mapping[str, Any]]

_SECTIONS: Final[Mapping[str, tuple[Callable[[_BySeed], dict[str, str]], ...]]] = {
    "rosi": (rosi.fields, rosi.figures),
    "transport": (transport.fields, transport.figures),
    "cliff": (cliff.fields, cliff.figures),
    "styles": (styles.fields, styles.figures),
}


def render(results: Results) -> dict[str, str]:
    """Texts of the page and its figures, by path below the folder they are written to.

    Raises:
        KeyError: An experiment has no results.
    """
    parts = [(_TEMPLATES / "introduction.md").read_text(encoding="utf-8")]
    found: dict[str, str] = {}
    for name, (fields, figures) in _SECTIONS.items():
        template = Template((_TEMPLATES / f"{name}.md").read_text(encoding="utf-8"))
        parts.append(template.substitute(fields(results[name])))
        drawn = figures(results[name])
        found |= {f"{FOLDER}/{figure}": text for figure, text in drawn.items()}
    return {PAGE: "\n".join(parts), **found}


def write_page(results: Results, out: Path) -> None:
    """Write the page and its figures."""
    for path, text in render(results).items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text, encoding="utf-8")
