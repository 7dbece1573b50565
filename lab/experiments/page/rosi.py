"""Section 1: rank-one safety injection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lab.experiments.observation import KL
from lab.experiments.rosi import AIM_FRAMED, AIM_ORDINARY, DIRECT, FRAMED, KINDS, ORDINARY, TOPICAL

from .tables import COLORS, cell, measured_table, panels, settings, svg, table

_Results = Mapping[int, Mapping[str, Any]]

_COLUMNS: Final = {
    "direct: refusal": str(DIRECT),
    "framed: refusal": str(FRAMED),
    "look-alike: refusal": "refusal on hard_negative prompts",
    "ordinary: refusal": str(ORDINARY),
    "ordinary: topical": str(TOPICAL),
    "ordinary: degenerate": "degenerate on ordinary prompts",
    "choice: correct": "correct on multiple_choice prompts",
}


def fields(results: _Results) -> dict[str, str]:
    """What the template asks for."""
    shipped = results[min(results)]
    return {
        "criterion": shipped["criterion"],
        "rows": measured_table(shipped["rows"], "chosen", _COLUMNS),
        "seeds": _over_seeds(results),
        "best": _best(results),
        "means": _means(shipped),
        "signs": _signs(results),
    }


def figures(results: _Results) -> dict[str, str]:
    """Framed refusal over alpha of the published form, a line for each layer of s."""
    with panels(len(results)) as (figure, axes):
        for panel, (seed, result) in zip(axes, results.items(), strict=True):
            _draw(panel, result["grid"])
            panel.set_title(f"training seed {seed}")
        axes[0].set_ylabel("refusal of framed prompts (validation)")
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=7,
            title="layer of s",
        )
        return {"rosi-alpha.svg": svg(figure)}


def _draw(panel: Any, grid: list[Mapping[str, Any]]) -> None:
    for index, layer in enumerate(sorted({point["layer"] for point in grid})):
        own = [point for point in grid if point["layer"] == layer]
        alphas = [point["alpha"] for point in own]
        values = [point[str(FRAMED)]["value"] for point in own]
        color = COLORS[index % len(COLORS)]
        panel.plot(alphas, values, marker="o", markersize=3, color=color, label=str(layer))
    alphas = sorted({point["alpha"] for point in grid})
    kept = [_mean([p[str(TOPICAL)]["value"] for p in grid if p["alpha"] == a]) for a in alphas]
    panel.plot(alphas, kept, "--", color="#777777", label="topical on ordinary, mean")
    panel.set_xscale("symlog", linthresh=16)
    panel.set_xlabel("alpha")
    panel.set_ylim(-0.03, 1.03)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _gains(result: Mapping[str, Any], method: str) -> tuple[Mapping[str, Any], float, float]:
    """A row, and its rise of framed and ordinary refusals over the base."""
    by_method = {row["method"]: row for row in result["rows"]}
    base, row = by_method["base"]["test"], by_method[method]
    framed, ordinary = (
        row["test"][str(what)]["value"] - base[str(what)]["value"] for what in (FRAMED, ORDINARY)
    )
    return row, framed, ordinary


def _is_met(framed: float, ordinary: float) -> bool:
    rounding = 1e-9
    return framed >= AIM_FRAMED - rounding and ordinary <= AIM_ORDINARY + rounding


def _over_seeds(results: _Results) -> str:
    methods = [row["method"] for row in results[min(results)]["rows"]]
    rows = []
    for method in methods:
        cells, met = [], 0
        for result in results.values():
            row, framed, ordinary = _gains(result, method)
            met += _is_met(framed, ordinary)
            where = f"{settings(row)}: " if row["settings"] else ""
            value = cell(row["test"][str(FRAMED)])
            cells.append(f"{where}{value}, {framed:+.2f}; ordinary {ordinary:+.3f}")
        rows.append([method, *cells, f"{met} of {len(results)}"])
    heads = ["framed refusal, test", *(f"training seed {seed}" for seed in results), "aim met"]
    return table(heads, rows)


def _best(results: _Results) -> str:
    """The method with the most framed refusals that meets the aim; of equal ones the least KL."""
    lines = []
    for seed, result in results.items():
        found = [(_gains(result, r["method"]), r["method"]) for r in result["rows"] if _is_ours(r)]
        met = [item for item in found if _is_met(*item[0][1:])]
        if not met:
            lines.append(f"- Training seed {seed}: no edit meets the aim.")
            continue
        (row, framed, ordinary), method = max(met, key=_by_framed_refusals)
        lines.append(
            f"- Training seed {seed}: {method} ({settings(row)}), framed refusals "
            f"{100 * framed:+.0f} points, ordinary ones {100 * ordinary:+.1f}; "
            f"{len(met)} of {len(found)} edits meet the aim."
        )
    return "\n".join(lines)


def _by_framed_refusals(
    item: tuple[tuple[Mapping[str, Any], float, float], str],
) -> tuple[float, float]:
    (row, framed, _), _ = item
    return framed, -row["test"][KL]["value"]


def _is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a row is an edit that was chosen, and neither the base nor a control."""
    return "num_tried" in row


def _means(result: Mapping[str, Any]) -> str:
    short = {"restricted_direct": "direct", "restricted_framed": "framed", "ordinary": "ordinary"}
    rows = [
        [
            f"`{row['site']}` {row['layer']}",
            *(cell(row["last_token"][kind], 3) for kind in KINDS),
            *(cell(row["all_tokens"][kind], 3) for kind in KINDS),
        ]
        for row in result["write_means"]
    ]
    heads = [f"{short[k]}, {token} token" for token in ("last", "mean") for k in KINDS]
    return table(["E[mean(y)] at", *heads], rows)


def _signs(results: _Results) -> str:
    """Sum of E[mean(y)] over the matrices, beside what the sign of alpha does."""
    rows = []
    for seed, result in results.items():
        sums = [
            sum(row[tokens]["restricted_framed"]["value"] for row in result["write_means"])
            for tokens in ("last_token", "all_tokens")
        ]
        rows.append([str(seed), *(f"{value:+.2f}" for value in sums), *_odd_parts(result["grid"])])
    magnitudes = sorted({point["alpha"] for point in results[min(results)]["grid"]})
    positive = [f"{alpha:g}" for alpha in magnitudes if alpha > 0]
    heads = ["training seed", "sum, last token", "sum, mean token"]
    return table([*heads, *(f"alpha {alpha} less -{alpha}" for alpha in positive)], rows)


def _odd_parts(grid: list[Mapping[str, Any]]) -> list[str]:
    """Framed refusal at alpha less that at -alpha, mean over the layers of s."""
    found: dict[float, list[float]] = {}
    for point in grid:
        sign = 1.0 if point["alpha"] > 0 else -1.0
        found.setdefault(abs(point["alpha"]), []).append(sign * point[str(FRAMED)]["value"])
    return [f"{2 * sum(v) / len(v):+.2f}" for _, v in sorted(found.items())]
