"""What is known of a bake: a table for people, provenance for programs, and a note to add."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from steering.directions import Direction
from steering.model_spec import ModelSpec
from steering.sites import SitePoint
from steering.weights import Survival, WeightEdits, WeightNorms

from .mean_output import MeanOutput
from .source import BakeSource

PROVENANCE_FILE: Final = "coxswain_bake.json"

MIN_RETAINED: Final = 0.9
"""A smaller fraction of an update that survives its dtype is warned of."""

_COLUMNS: Final = (
    *("layer", "site", "E[mean(Wx)]", "> 0", "|W|", "|mean row|", "alpha"),
    *("|dW|/|W|", "retained", "error"),
)


@dataclass(frozen=True, slots=True)
class PointReport:
    """The write weights at one point.

    Attributes:
        point: Layer and site.
        tensors: Names of the weights in the files.
        output: What the unedited model puts out there.
        norms: Norms of the weights and of the update.
        gains: Strength of each edit there, in order: alpha, with the sign it is used with.
        survival: What rounding leaves of the update; None where no strength was chosen.
    """

    point: SitePoint
    tensors: tuple[str, ...]
    output: MeanOutput
    norms: WeightNorms
    gains: tuple[float, ...]
    survival: Survival | None

    def to_dict(self) -> dict[str, Any]:
        """Return the provenance that is written, as JSON."""
        survival = self.survival
        return {
            "layer": self.point.layer,
            "site": self.point.site.value,
            "tensors": list(self.tensors),
            "alpha": list(self.gains),
            "mean_output": self.output.mean,
            "positive_share": self.output.positive,
            "weight_norm": self.norms.weight,
            "mean_row_norm": self.norms.mean_row,
            "relative_update": self.norms.relative_update,
            "retained": None if survival is None else survival.retained,
            "relative_error": None if survival is None else survival.relative_error,
        }

    def row(self) -> tuple[str, ...]:
        """Return the cells of its row in the table."""
        survival = self.survival
        return (
            str(self.point.layer),
            self.point.site.value,
            f"{self.output.mean:+.2e}",
            f"{self.output.positive:.2f}",
            f"{self.norms.weight:.3g}",
            f"{self.norms.mean_row:.2e}",
            " ".join(f"{gain:+.4g}" for gain in self.gains),
            f"{self.norms.relative_update:.2e}",
            *(("", "") if survival is None else _survival_cells(survival)),
        )


@dataclass(frozen=True, eq=False)
class BakeReport:
    """A bake that was done, or rehearsed without writing.

    Attributes:
        label: What is baked.
        requires: Permissions a key of a server would need to use it.
        notes: What is left out, and why.
        points: One for each edited output, by layer, attention first.
        has_strength: Whether alpha was chosen; where not, the table shows the effect of 1.
        prompts: What outputs were measured on: a file's name, or `built-in`.
    """

    label: str
    requires: tuple[str, ...]
    notes: tuple[str, ...]
    points: Sequence[PointReport]
    has_strength: bool
    prompts: str

    @property
    def total(self) -> Survival:
        """What rounding leaves of all updates together."""
        found = (item.survival for item in self.points)
        return sum((item for item in found if item is not None), Survival())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know before using the result."""
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        lost = [
            item
            for item in self.points
            if item.survival is not None and _retained(item.survival) < MIN_RETAINED
        ]
        if lost:
            worst = min(_retained(item.survival or Survival()) for item in lost)
            yield (
                f"less than {MIN_RETAINED:.0%} of the update survives the dtype at {len(lost)} of "
                f"{len(self.points)} points (worst {worst:.0%}, total "
                f"{_retained(self.total):.0%}); write float32 (--dtype float32), or serve it per "
                "request, which loses nothing"
            )
        if self.requires:
            yield (
                f"a server asks keys for {', '.join(self.requires)} before it uses this; a "
                "checkpoint asks nobody"
            )

    def table(self) -> str:
        """Return a table with a row for each point, and their total where a strength was chosen."""
        rows = [_COLUMNS, *(item.row() for item in self.points)]
        if self.has_strength:
            rows.append(("total", *[""] * 7, *_survival_cells(self.total)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )
        return "\n".join(lines)

    def to_dict(self) -> Mapping[str, Any]:
        """Return the provenance that is written, as JSON."""
        return {
            "matrices": [item.to_dict() for item in self.points],
            "total": {
                "retained": self.total.retained,
                "relative_error": self.total.relative_error,
            },
            "calibration": {
                "prompts": self.prompts,
                "tokens": self.points[0].output.num_tokens,
            },
            "requires": list(self.requires),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def _retained(survival: Survival) -> float:
    return 1.0 if survival.retained is None else survival.retained


def _survival_cells(survival: Survival) -> tuple[str, str]:
    if survival.retained is None or survival.relative_error is None:
        return ("-", "-")
    return (f"{survival.retained:.3f}", f"{survival.relative_error:.2g}")


def write_card(
    folder: Path, source: BakeSource, spec: ModelSpec, edits: WeightEdits, report: BakeReport
) -> None:
    """Write provenance into `folder`, and a note at the end of its model card."""
    document: dict[str, Any] = {
        "format": "coxswain-bake-1",
        "coxswain": version("coxswain"),
        "base": {
            "name": spec.name,
            "family": spec.family,
            "fingerprint": spec.fingerprint,
        },
        "source": source.record,
        "directions": [_direction(item) for item in _directions(source)],
        "dtype": None if edits.dtype is None else str(edits.dtype).removeprefix("torch."),
        "untied": None if edits.untied is None else edits.untied.unembedding,
        **report.to_dict(),
    }
    text = json.dumps(document, indent=1) + "\n"
    (folder / PROVENANCE_FILE).write_text(text, encoding="utf-8")
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(_note(source, spec, report))


def _directions(source: BakeSource) -> list[Direction]:
    return list({item.direction.digest: item.direction for item in source.steers}.values())


def _direction(direction: Direction) -> dict[str, Any]:
    return {
        "reference": direction.reference,
        "digest": direction.digest,
        "kind": direction.kind.value,
        "requires": list(direction.requires),
        "provenance": dict(direction.provenance),
    }


def _note(source: BakeSource, spec: ModelSpec, report: BakeReport) -> str:
    lines = [
        "",
        "## Edited weights",
        "",
        f"These are not the weights of {spec.name}: {source.label} was written into "
        f"{len(report.points)} of its outputs with `coxswain bake`. Whatever this card says of "
        "measurements holds for the original.",
        f"`{PROVENANCE_FILE}` names the directions, the strength at each matrix, and what rounding "
        "left of it.",
    ]
    lines += [f"Warning: {text}." for text in report.warnings]
    return "\n".join(lines) + "\n"
