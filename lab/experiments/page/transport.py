"""Section 2: transport against projection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from lab.experiments.observation import PERPLEXITY
from lab.experiments.transport import EFFECT

from .tables import COLORS, cell, measured_table, panels, settings, svg, table

_Results = Mapping[int, Mapping[str, Any]]
_Rows = Iterable[Mapping[str, Any]]

_COLUMNS: Final = {
    "direct: topical": str(EFFECT),
    "direct: refusal": "refusal on restricted_direct prompts",
    "direct: degenerate": "degenerate on restricted_direct prompts",
    "ordinary: topical": "topical on ordinary prompts",
    "choice: correct": "correct on multiple_choice prompts",
}
_BOUNDS: Final = (1.01, 1.05, 1.25)
_SCOPES: Final = ("last prompt token", "all tokens")
_PROJECTIONS: Final = ("directional ablation", "ACE")
_TRANSPORTS: Final = ("Gaussian OT",)


def fields(results: _Results) -> dict[str, str]:
    """What the template asks for."""
    shipped = results[min(results)]
    return {
        "criterion": shipped["criterion"],
        "rows": measured_table(shipped["rows"], "where", _COLUMNS),
        "layers": _layers(results),
        "equal": _equal(results),
        "seeds": _over_seeds(results),
    }


def figures(results: _Results) -> dict[str, str]:
    """Effect over the rise of perplexity as the strength grows, a line for each method."""
    with panels(len(results), height=3.6) as (figure, axes):
        for panel, (seed, result) in zip(axes, results.items(), strict=True):
            base = _plain(result)["test"][PERPLEXITY]["value"]
            for index, (method, rows) in enumerate(_by_method(result["strengths"]).items()):
                x = [100 * (row["test"][PERPLEXITY]["value"] / base - 1) for row in rows]
                y = [row["test"][str(EFFECT)]["value"] for row in rows]
                style = "-" if index < len(COLORS) else "--"
                color = COLORS[index % len(COLORS)]
                panel.plot(x, y, style, marker="o", markersize=3, color=color, label=method)
            panel.set_xlabel("rise of perplexity, %")
            panel.set_xscale("symlog", linthresh=0.3)
            panel.set_xticks([-0.1, 0, 0.1, 1, 10, 100], ["", "0", "0.1", "1", "10", "100"])
            panel.set_title(f"training seed {seed}")
        axes[0].set_ylabel("topical answers to direct prompts")
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=6
        )
        return {"transport-strength.svg": svg(figure)}


def _plain(result: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(r for r in result["rows"] if r["method"] == "no-op")
    return found


def _by_method(rows: _Rows) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def _best(rows: _Rows) -> Mapping[str, Any] | None:
    """The row with the largest effect, and of equal ones the least perplexity."""
    return max(
        rows,
        key=lambda r: (r["test"][str(EFFECT)]["value"], -r["test"][PERPLEXITY]["value"]),
        default=None,
    )


def _layers(results: _Results) -> str:
    """Middle layers against all of them, each with its best K."""
    rows = []
    for seed, result in results.items():
        for scope in _SCOPES:
            cells = []
            for place in ("middle layer", "two middle layers", "all layers"):
                method = f"Gaussian OT, {place}, {scope}"
                row = _best(r for r in result["rows"] if r["method"] == method)
                if row is None:
                    cells.append("not measured")
                    continue
                effect, perplexity = row["test"][str(EFFECT)], row["test"][PERPLEXITY]
                rank = row["settings"]["K"]
                cells.append(f"{cell(effect)}, perplexity {perplexity['value']:.2f}, K {rank}")
            rows.append([str(seed), scope, *cells])
    heads = ["training seed", "acts on", "layer 2", "layers 2 + 3", "all six layers"]
    return table(heads, rows)


def _equal(results: _Results) -> str:
    """Largest effect within a bound on perplexity: projections against transport."""
    rows = []
    for seed, result in results.items():
        limit = _plain(result)["test"][PERPLEXITY]["value"]
        for bound in _BOUNDS:
            within = [
                row
                for row in result["strengths"]
                if row["test"][PERPLEXITY]["value"] <= bound * limit
            ]
            rows.append([str(seed), f"{100 * bound - 100:.0f} %", *_sides(within)])
    heads = ["training seed", "perplexity may rise by", "projections", "Linear-AcT"]
    return table([*heads, "Gaussian OT, free layer", "Gaussian OT, layer 2"], rows)


def _sides(within: list[Mapping[str, Any]]) -> list[str]:
    middle = "Gaussian OT, middle"
    sides = [
        [r for r in within if r["method"].startswith(_PROJECTIONS)],
        [r for r in within if r["method"].startswith("Linear-AcT")],
        [r for r in within if r["method"].startswith(_TRANSPORTS) and middle not in r["method"]],
        [r for r in within if r["method"].startswith(middle)],
    ]
    cells = []
    for rows in sides:
        best = _best(rows)
        if best is None:
            cells.append("none")
            continue
        cells.append(f"{cell(best['test'][str(EFFECT)])}: {best['method']}, x {best['factor']:g}")
    return cells


def _over_seeds(results: _Results) -> str:
    shipped = results[min(results)]["rows"]
    rows = []
    for index, row in enumerate(shipped):
        cells = []
        for result in results.values():
            own = result["rows"][index]
            where = f"{settings(own)}: " if own["settings"] else ""
            perplexity = own["test"][PERPLEXITY]["value"]
            cells.append(f"{where}{cell(own['test'][str(EFFECT)])}, {perplexity:.2f}")
        rows.append([row["method"], *cells])
    heads = ["effect, perplexity", *(f"training seed {seed}" for seed in results)]
    return table(heads, rows)
