"""Section 3: the refusal cliff."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lab.experiments.cliff.experiment import OUTCOME, PUBLISHED

from .results import FOLDER
from .tables import COLORS, cell, panels, svg, table

_Results = Mapping[int, Mapping[str, Any]]

_PROBES: Final = {
    PUBLISHED: "probe as published: refused direct against ordinary",
    OUTCOME: "probe of the outcome: everything refused against everything answered",
}


def fields(results: _Results) -> dict[str, str]:
    """What the template asks for."""
    return {
        "groups": _groups(results),
        "curves": "\n\n".join(
            f"![Probe scores before the answer, training seed {seed}]"
            f"({FOLDER}/cliff-seed{seed}.svg)"
            for seed in results
        ),
        "accuracy": _accuracy(results),
        "counts": _counts(results[min(results)]["heads"]),
        "heads": _heads(results),
        "areas": _areas(results),
        "picked": _picked(results),
    }


def figures(results: _Results) -> dict[str, str]:
    """Mean curves before the answer: a file for each seed, a panel for each probe."""
    return {f"cliff-seed{seed}.svg": _figure(result) for seed, result in results.items()}


def _figure(result: Mapping[str, Any]) -> str:
    with panels(len(_PROBES)) as (figure, axes):
        for panel, (probe, title) in zip(axes, _PROBES.items(), strict=True):
            for color, (group, found) in zip(COLORS, result["groups"][probe].items(), strict=False):
                if "curve" in found:
                    x = range(-len(found["curve"]), 0)
                    label = f"{group} ({found['n']})"
                    panel.plot(x, found["curve"], color=color, label=label)
            panel.set_title(title, fontsize=8)
            panel.set_xlabel("tokens before the answer")
            panel.set_ylim(-0.03, 1.03)
        axes[0].set_ylabel("probe score")
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2)
        return svg(figure)


def _groups(results: _Results) -> str:
    rows = [
        [
            str(seed),
            probe,
            group,
            str(found["n"]),
            *(cell(found.get(name)) for name in ("plateau", "final", "cliff")),
        ]
        for seed, result in results.items()
        for probe in _PROBES
        for group, found in result["groups"][probe].items()
    ]
    heads = ["training seed", "probe", "rollouts", "n", "plateau", "final", "cliff"]
    return table(heads, rows)


def _accuracy(results: _Results) -> str:
    rows = [
        [str(seed), *(cell(result["accuracy"][probe]) for probe in _PROBES)]
        for seed, result in results.items()
    ]
    return table(["training seed", *_PROBES], rows)


def _counts(heads: Mapping[str, Any]) -> str:
    total = heads["num_heads"]
    parts = [
        f"{float(percent):g} % are {count} ({100 * count / total:.1f} %)"
        for percent, count in sorted(heads["counts"].items(), key=lambda item: float(item[0]))
    ]
    return f"Of {total} heads, " + ", ".join(parts)


def _heads(results: _Results) -> str:
    rows = []
    for seed, result in results.items():
        for row in result["heads"]["rows"]:
            framed, ordinary = row["framed"], row["ordinary"]
            named = row["heads"] or []
            rows.append(
                [
                    str(seed),
                    str(row["count"]),
                    row["ranking"] + (f" ({row['draws']} draws)" if row["draws"] > 1 else ""),
                    " ".join(f"{layer}.{head}" for layer, head in named),
                    cell(framed["complete"]),
                    cell(framed["refusal"]),
                    cell(framed["falls"]),
                    cell(framed["thought declines"]),
                    cell(framed.get("final score")),
                    cell(ordinary["topical"]),
                ]
            )
    heads = ["training seed", "heads off", "ranked by", "which", "framed: thinks"]
    ends = [
        "framed: refusal",
        "framed: falls off",
        "framed: thought declines",
        "final score",
        "ordinary: topical",
    ]
    return table([*heads, *ends], rows)


def _areas(results: _Results) -> str:
    rows = []
    for seed, result in results.items():
        for row in result["judge"]:
            area = "fewer than two of a kind" if row["auc"] is None else cell(row["auc"])
            rows.append([str(seed), row["pool"], row["probe"], row["rule"], area])
    return table(["training seed", "pool", "probe", "ranked by", "area under the curve"], rows)


def _picked(results: _Results) -> str:
    rows = []
    fractions: list[float] = []
    for seed, result in results.items():
        for row in result["judge"]:
            if row["pool"] != "framed":
                continue
            fractions = [picked["fraction"] for picked in row["picked"]]
            shares = [cell(picked["share"]) for picked in row["picked"]]
            rows.append([str(seed), row["probe"], row["rule"], *shares])
        drawn = next(r for r in result["judge"] if r["pool"] == "framed")["picked"]
        rows.append([str(seed), "", "random", *(cell(picked["random"]) for picked in drawn)])
    heads = ["training seed", "probe", "ranked by"]
    return table([*heads, *(f"first {100 * fraction:g} %" for fraction in fractions)], rows)
