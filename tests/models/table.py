"""Run every family and write what came out into docs/models.md.

python -m tests.models.table
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from steering.layout import Layout

from .families import FAMILIES_BY_NAME
from .served import served_errors

__all__ = ["DOCUMENT", "documented_rows", "family_row"]

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "models.md"
_BEGIN: Final = "<!-- families: written by `make families` from a run; a test compares -->\n"
_END: Final = "<!-- /families -->\n"
_HEADER: Final = (
    (
        "Models",
        "`model_type`",
        "Out of the ordinary, and on in the test",
        "Sites",
        "Off by",
        "Steered",
    ),
    ("---",) * 6,
)


def family_row(name: str, layout: Layout) -> list[str]:
    """The cells that follow from the table of families and from the layout."""
    family = FAMILIES_BY_NAME[name]
    absent = [f"`{site.value}`" for site in layout.unavailable_sites]
    sites = [f"without {', '.join(absent)}" if absent else "all"]
    for note in dict.fromkeys(layout.notes.values()):
        named = [f"`{site.value}`" for site in layout.notes if layout.notes[site] == note]
        sites.append(f"{' and '.join(named)}: {note}")
    return [family.checkpoints, f"`{family.model_type}`", family.switches, "; ".join(sites)]


def documented_rows() -> dict[str, list[str]]:
    """The rows of the document by family, in the order of the table of families."""
    table = DOCUMENT.read_text().split(_BEGIN)[1].split(_END)[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line][len(_HEADER) :]
    return dict(zip(FAMILIES_BY_NAME, rows, strict=True))


def _measured_row(name: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        layout, errors = served_errors(name, Path(folder))
    return [*family_row(name, layout), *_measured(errors)]


def _measured(errors: Mapping[str, float]) -> Sequence[str]:
    steered = max(error for label, error in errors.items() if label != "plain")
    return f"{errors['plain']:.0e}", f"{steered:.0e}"


def main() -> None:
    """Write the table; takes a minute."""
    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rows = [*_HEADER, *(_measured_row(name) for name in FAMILIES_BY_NAME)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    before, rest = DOCUMENT.read_text().split(_BEGIN)
    DOCUMENT.write_text(f"{before}{_BEGIN}{table}{_END}{rest.split(_END)[1]}")


if __name__ == "__main__":
    main()
