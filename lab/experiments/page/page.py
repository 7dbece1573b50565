"""`docs/experiments.md` and its figures, made of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any, Final

from . import cliff, rosi, styles, transport
from .results import FOLDER, Results

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
