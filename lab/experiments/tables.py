"""Markdown tables of estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .estimate import Estimate
from .observation import KL, PERPLEXITY

__all__ = ["cell", "measured_table", "settings", "table"]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, without a newline at its end."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_table(
    rows: Sequence[Mapping[str, Any]], set_as: str, columns: Mapping[str, str]
) -> str:
    """A line for each measured way to steer: what was set, rates by column, perplexity and KL."""
    lines = [
        [
            row["method"],
            settings(row),
            *(cell(row["test"][key]) for key in columns.values()),
            cell(row["test"][PERPLEXITY], 3),
            cell(row["test"][KL], 4),
        ]
        for row in rows
    ]
    return table(["", set_as, *columns, "perplexity", "KL"], lines)


def cell(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    """An estimate as JSON has it: value and interval; empty where it was not measured."""
    if found is None:
        return ""
    estimate = Estimate.from_dict(found)
    ends = f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}"
    return f"{estimate.value:.{digits}f} ({ends})"


def settings(row: Mapping[str, Any]) -> str:
    """What was set, in short."""
    return ", ".join(_setting(name, value) for name, value in row["settings"].items())


def _setting(name: str, value: Any) -> str:
    if not isinstance(value, list):
        return f"{name} {value:g}"
    if len(value) == 1:
        return f"{name.removesuffix('s')} {value[0]}"
    shown = f"{value[0]} to {value[-1]}" if len(value) > 2 else " and ".join(map(str, value))
    return f"{name} {shown}"
