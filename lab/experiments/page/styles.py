"""Section 4: dose and response of two tones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lab.experiments.observation import KL, PERPLEXITY
from lab.experiments.styles import AXES

from .tables import COLORS, cell, panels, svg, table

_Results = Mapping[int, Mapping[str, Any]]

_TOPICAL: Final = "topical on ordinary prompts"
_BROKEN: Final = "degenerate on ordinary prompts"
_REFUSAL: Final = "refusal on restricted_direct prompts"


def fields(results: _Results) -> dict[str, str]:
    """What the template asks for."""
    shipped = results[min(results)]
    tables = {axis: _rows(shipped, axis) for axis in AXES}
    return {**tables, "seeds": _over_seeds(results)}


def figures(results: _Results) -> dict[str, str]:
    """Tone and damage over strength, a panel for each axis."""
    rows = results[min(results)]["rows"]
    with panels(len(AXES), height=3.4) as (figure, axes):
        for panel, axis in zip(axes, AXES, strict=True):
            own = [row for row in rows if row["axis"] == axis]
            _draw(panel, axis, own)
        axes[0].set_ylabel("share of ordinary answers")
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
        return {"styles-dose.svg": svg(figure)}


def _draw(panel: Any, axis: str, rows: list[Mapping[str, Any]]) -> None:
    added = [row for row in rows if row["method"] in ("none", "added")]
    added.sort(key=lambda row: row["settings"]["strength"])
    drawn = [row for row in rows if row["method"] == "random"]
    x = [row["settings"]["strength"] for row in added]
    for color, key, label in (
        (COLORS[0], f"{axis} on ordinary prompts", "in the tone"),
        (COLORS[4], _TOPICAL, "topical"),
        (COLORS[2], _BROKEN, "degenerate"),
    ):
        found = [row["test"][key] for row in added]
        panel.plot(x, [f["value"] for f in found], marker="o", ms=3, color=color, label=label)
        ends = [f["low"] for f in found], [f["high"] for f in found]
        panel.fill_between(x, *ends, color=color, alpha=0.15, linewidth=0)
    random_x = [row["settings"]["strength"] for row in drawn]
    topical = [row["test"][_TOPICAL]["value"] for row in drawn]
    label = "topical, random directions"
    panel.plot(random_x, topical, ":", marker="s", ms=3, color=COLORS[4], label=label)
    twin = panel.twinx()
    twin.plot(x, [r["test"][PERPLEXITY]["value"] for r in added], "--", color="#777777")
    twin.set_yscale("log")
    twin.set_ylabel("perplexity (dashed)")
    panel.set_title(axis)
    panel.set_xlabel("strength")
    panel.set_ylim(-0.03, 1.03)


def _rows(result: Mapping[str, Any], axis: str) -> str:
    own = [row for row in result["rows"] if row["axis"] == axis]
    rows = [
        [
            row["method"],
            f"{row['settings']['strength']:g}" if row["settings"] else "",
            cell(row["test"][f"{axis} on ordinary prompts"]),
            cell(row["test"][f"very {axis} on ordinary prompts"]),
            cell(row["test"][_TOPICAL]),
            cell(row["test"][_BROKEN]),
            cell(row["test"][_REFUSAL]),
            cell(row["test"][PERPLEXITY], 3),
            cell(row["test"][KL], 3),
        ]
        for row in own
    ]
    heads = ["", "strength", axis, f"very {axis}", "topical", "degenerate", "direct: refusal"]
    return table([*heads, "perplexity", "KL"], rows)


def _over_seeds(results: _Results) -> str:
    """The largest share in the tone among strengths that keep 95 % of topical answers."""
    rows = []
    for axis in AXES:
        for method in ("added", "added on all tokens"):
            cells = [_kept(result, axis, method) for result in results.values()]
            rows.append([f"{axis}, {method}", *cells])
    return table(["", *(f"training seed {seed}" for seed in results)], rows)


def _kept(result: Mapping[str, Any], axis: str, method: str) -> str:
    own = [row for row in result["rows"] if row["axis"] == axis]
    (plain,) = (r["test"][_TOPICAL]["value"] for r in own if r["method"] == "none")
    key = f"{axis} on ordinary prompts"
    kept = [
        row
        for row in own
        if row["method"] == method and row["test"][_TOPICAL]["value"] >= 0.95 * plain
    ]
    if not kept:
        return "none"
    best = max(kept, key=lambda row: row["test"][key]["value"])
    broken = best["test"][_BROKEN]["value"]
    strength = best["settings"]["strength"]
    return f"{cell(best['test'][key])} at {strength:g}, degenerate {broken:.2f}"
