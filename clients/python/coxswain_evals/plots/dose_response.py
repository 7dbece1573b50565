"""Dose-response plots: every measure of a treatment over its dose, beside its controls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from coxswain_evals.arm import Arm, Role
from coxswain_evals.counting import statistic_of
from coxswain_evals.results import Results
from coxswain_evals.statistics import Statistic
from coxswain_evals.suite import Measure

from .figure_file import STYLE, blank_figure, write_figure

# Okabe and Ito's colours, told apart by most people.
_STYLES: Final = {
    Role.TREATMENT: ("#0072B2", "o", "treatment"),
    Role.RANDOM: ("#E69F00", "s", "random direction"),
    Role.ADDITION: ("#009E73", "^", "plain addition"),
}
_BASE_COLOUR: Final = "#555555"
_INCHES: Final = (3.4, 2.8)
_COLUMNS: Final = 3


def draw_dose_responses(results: Results, folder: Path) -> list[Path]:
    """Write a plot for each treatment as SVG and PNG; the files written.

    Over the treatment's dose where it is known at every strength, else over the factor on its
    strength; its controls stand where it stands. A control that is the treatment itself is not
    drawn again.
    """
    import matplotlib

    written = []
    with matplotlib.rc_context(STYLE):  # the same run draws the same bytes
        for treatment in results.suite.treatments:
            arms = [arm for arm in results.arms if arm.treatment == treatment.name]
            figure = _figure(results, treatment.name, arms)
            stem = re.sub(r"[^A-Za-z0-9.-]+", "_", treatment.name)
            svg, png = folder / f"dose-{stem}.svg", folder / f"dose-{stem}.png"
            for path in (svg, png):
                write_figure(figure, path)
                written.append(path)
    return written


def _figure(results: Results, title: str, arms: Sequence[Arm]) -> Any:
    measures = results.suite.measures
    columns = min(_COLUMNS, len(measures))
    rows = -(-len(measures) // columns)
    figure = blank_figure((_INCHES[0] * columns, _INCHES[1] * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    places = _places(arms)
    for axis, measure in zip(axes, measures, strict=False):
        _panel(axis, results, arms, measure, places)
    for axis in axes[len(measures) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(title)
    return figure


def _places(arms: Sequence[Arm]) -> dict[float | None, float]:
    """Where each strength stands: at the treatment's dose, or at itself."""
    doses = {arm.strength: arm.dose for arm in arms if arm.role is Role.TREATMENT}
    known = {strength: dose for strength, dose in doses.items() if dose is not None}
    return known if len(known) == len(doses) else {s: s for s in doses if s is not None}


def _panel(
    axis: Any,
    results: Results,
    arms: Sequence[Arm],
    measure: Measure,
    places: Mapping[float | None, float],
) -> None:
    base = results.measured[measure.name, Role.NO_OP].estimate
    if base.value is not None:
        axis.axhline(base.value, color=_BASE_COLOUR, linewidth=1, linestyle=":", label="no-op")
    if base.low is not None:
        axis.axhspan(base.low, base.high, color=_BASE_COLOUR, alpha=0.12, linewidth=0)
    for role, (colour, marker, label) in _STYLES.items():
        own = [arm for arm in arms if arm.role is role and arm.same_as is None]
        points = [_point(results, arm, measure, places) for arm in own]
        shown = sorted(point for point in points if point is not None)
        if not shown:
            continue
        strengths, values, below, above = zip(*shown, strict=True)
        style = {"color": colour, "marker": marker, "markersize": 4, "capsize": 2, "linewidth": 1}
        axis.errorbar(strengths, values, yerr=[below, above], label=label, **style)
    axis.set_title(f"{measure.name} ({measure.dataset})")
    is_dose = any(strength != place for strength, place in places.items())
    axis.set_xlabel("dose, mean residual norms" if is_dose else "factor on the strength")
    if statistic_of(measure) is Statistic.RATE:
        axis.set_ylim(-0.04, 1.04)


def _point(
    results: Results, arm: Arm, measure: Measure, places: Mapping[float | None, float]
) -> tuple[float, float, float, float] | None:
    found = results.get(measure, arm)
    if found is None or found.estimate.value is None:
        return None
    own = found.estimate
    value = own.value or 0.0
    low = value if own.low is None else min(own.low, value)
    high = value if own.high is None else max(own.high, value)
    return places[arm.strength], value, value - low, high - value
