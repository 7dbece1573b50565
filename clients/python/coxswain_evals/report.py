"""A run as Markdown and JSON, and two runs beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .arm import Arm, Role
from .counting import Counted, statistic_of
from .plots import draw_dose_responses
from .results import Measured, Results
from .run_folder import write_whole
from .statistics import Difference, Estimate, difference
from .suite import Measure, RateMeasure, TopicalMeasure

_INTERVALS = (
    "Brackets hold 95 % intervals: Wilson's for rates, bootstrap over items for everything else. "
    "Differences are from the no-op on the same items, with paired bootstrap intervals and, for "
    "rates, the p value of McNemar's exact test."
)


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write `report.md`, `results.json` and a plot for each treatment; the files written."""
    plots = draw_dose_responses(results, folder)
    page, numbers = folder / "report.md", folder / "results.json"
    write_whole(page, render(results, [plot.name for plot in plots if plot.suffix == ".svg"]))
    text = json.dumps(results.document(), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(numbers, text + "\n")
    return [page, numbers, *plots]


def render(results: Results, plots: Sequence[str]) -> str:
    """The report as Markdown; `plots` are files beside it."""
    return "\n".join([*_head(results), *_treatments(results), *_judges(results), *_plots(plots)])


def _head(results: Results) -> Iterator[str]:
    suite, server = results.suite, results.server
    yield f"# {suite.name}\n"
    if suite.description:
        yield f"{suite.description}\n"
    yield (
        f"Model `{server['model']}`, fingerprint `{server['fingerprint']}`; temperature "
        f"{suite.temperature:g}, at most {suite.max_tokens} tokens, seed {suite.seed}.\n"
    )
    yield f"{_INTERVALS}\n"


def _treatments(results: Results) -> Iterator[str]:
    no_op = next(arm for arm in results.arms if arm.role is Role.NO_OP)
    for treatment in results.suite.treatments:
        arms = [no_op, *(arm for arm in results.arms if arm.treatment == treatment.name)]
        yield f"## {treatment.name}\n"
        heads = ["arm", "dose", *(_heading(measure) for measure in results.suite.measures)]
        yield table(heads, [_row(results, arm) for arm in arms])
        yield "Differences from the no-op:\n"
        yield table(heads, [_gaps(results, arm) for arm in arms[1:]])
        notes = [f"- `{arm.name}`: {arm.note}." for arm in arms if arm.note]
        if notes:
            yield "\n".join(notes) + "\n"


def _heading(measure: Measure) -> str:
    wanted = f", {measure.wanted} wanted" if measure.wanted else ""
    return f"{measure.name} ({measure.dataset}{wanted})"


def _row(results: Results, arm: Arm) -> list[str]:
    cells = [_estimate_cell(results.get(measure, arm)) for measure in results.suite.measures]
    return [f"`{arm.name}`", _dose(arm), *cells]


def _gaps(results: Results, arm: Arm) -> list[str]:
    found = [results.get(measure, arm) for measure in results.suite.measures]
    cells = ["" if item is None else _gap(item.difference) for item in found]
    return [f"`{arm.name}`", _dose(arm), *cells]


def _dose(arm: Arm) -> str:
    return "" if not arm.doses or arm.dose is None else f"{arm.dose:.3g}"


def _estimate_cell(found: Measured | None) -> str:
    return "" if found is None else estimate_text(found.estimate)


def estimate_text(found: Estimate) -> str:
    """A value with its interval, and how many items have none."""
    if found.value is None:
        return f"none of {found.missing}"
    missing = f"; {found.missing} without" if found.missing else ""
    return f"{found.value:.3g}{_interval(found.low, found.high)} n={found.n}{missing}"


def _gap(found: Difference | None) -> str:
    if found is None or found.value is None:
        return ""
    p_value = "" if found.p_value is None else f" p={found.p_value:.2g}"
    return f"{found.value:+.3g}{_interval(found.low, found.high)}{p_value}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"


def _judges(results: Results) -> Iterator[str]:
    """What could not be read and what judges disagreed on: in all, and wherever there is any."""
    rows = []
    for measure in results.suite.measures:
        if not isinstance(measure, RateMeasure | TopicalMeasure):
            continue
        found = [(arm.name, results.get(measure, arm)) for arm in results.arms if not arm.same_as]
        counts = {name: _doubts(item.counted) for name, item in found if item is not None}
        total = tuple(map(sum, zip(*counts.values(), strict=True)))
        listed = {"all arms": total, **{n: c for n, c in counts.items() if any(c)}}
        second = getattr(measure, "second", None)
        judges = [measure.judge, "" if second is None else second.judge]
        rows += [[measure.name, name, *judges, *map(str, c)] for name, c in listed.items()]
    if rows:
        yield "## Judges\n"
        yield "Answers that a judge's words could not be read for, and that two judges differ on:\n"
        heads = ["measure", "arm", "judge", "second", "unparsable", "by the second", "differ"]
        yield table(heads, rows)


def _doubts(counted: Counted) -> tuple[int, int, int]:
    return counted.missing, counted.second_missing, counted.disagreements or 0


def _plots(plots: Sequence[str]) -> Iterator[str]:
    if plots:
        yield "## Dose and response\n"
        yield "\n".join(f"![{Path(plot).stem}]({plot})" for plot in plots) + "\n"


@dataclass(frozen=True)
class Change:
    """One measure on one arm in both runs."""

    measure: str
    arm: str
    first: str
    second: str
    difference: Difference


def changes(first: Results, second: Results) -> list[Change]:
    """Second less first, for every measure and arm that both have.

    Measures agree where all they state does, arms where their names do.
    """
    found = []
    others = {measure.name: measure for measure in second.suite.measures}
    for measure in first.suite.measures:
        if others.get(measure.name) != measure:
            continue
        for arm in first.arms:
            key = measure.name, arm.name
            if key not in first.measured or key not in second.measured:
                continue
            one, two = first.measured[key], second.measured[key]
            gap = difference(
                one.counted.values,
                two.counted.values,
                statistic_of(measure),
                seed=first.suite.seed,
            )
            shown = estimate_text(one.estimate), estimate_text(two.estimate)
            found.append(Change(measure.name, arm.name, *shown, gap))
    return found


def render_comparison(first: Results, second: Results) -> str:
    """Both runs as Markdown."""
    return "\n".join(_comparison(first, second))


def _comparison(first: Results, second: Results) -> Iterator[str]:
    for name, results in (("first", first), ("second", second)):
        server = results.server
        yield f"{name}: {results.suite.name}, `{server['model']}` `{server['fingerprint']}`"
    yield ""
    heads = ["measure", "arm", "first", "second", "second less first", "items in both"]
    yield table(heads, [_change_row(change) for change in changes(first, second)])
    for name, other, results in (("first", second, first), ("second", first, second)):
        only = sorted({k for k in results.measured if k not in other.measured})
        if only:
            listed = ", ".join(f"{measure} on {arm}" for measure, arm in only)
            yield f"Only in the {name}: {listed}.\n"


def _change_row(change: Change) -> list[str]:
    gap = change.difference
    if gap.value is None:
        text = "no items in common"
    else:
        text = f"{gap.value:+.3g}"
        text += "" if gap.low is None else f" [{gap.low:.3g}, {gap.high:.3g}]"
        text += "" if gap.p_value is None else f" p={gap.p_value:.2g}"
    return [change.measure, f"`{change.arm}`", change.first, change.second, text, str(gap.n)]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with its heading; ends with an empty line."""
    lines = [heads, ["---"] * len(heads), *rows]
    texts = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join(texts) + "\n"
