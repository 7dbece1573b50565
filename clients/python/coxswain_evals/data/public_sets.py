"""Prompts of public sets, in the files they are published as, told apart by their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coxswain_evals.errors import SuiteError

from .rows import Row, read_rows


@dataclass(frozen=True, slots=True)
class _Format:
    """How a set is published.

    Attributes:
        sets: Names of the sets.
        prompt: Column of the prompt; all columns are in lower case.
        needs: Columns that tell the format apart, beside the prompt's.
        before: Column of a context that goes before the prompt, and a line of dashes between.
        after: Column of an input that goes below the prompt.
        names: Columns that name a row, the first that is there; without any, its place does.
    """

    sets: str
    prompt: str
    needs: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    names: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column it needs."""
        return (self.prompt, *self.needs)


_FORMATS: Final = (
    _Format("StrongREJECT", "forbidden_prompt"),
    _Format("AdvBench, JailbreakBench", "goal", names=("index",)),
    _Format("HarmBench", "behavior", ("behaviorid",), "contextstring", names=("behaviorid",)),
    _Format("CATQA", "question", ("category",)),
    _Format("Alpaca", "instruction", after="input"),
    _Format("XSTest", "prompt", ("type",), names=("id", "id_v2")),
    _Format("OR-Bench", "prompt", ("category",)),
    _Format("any other", "prompt", names=("id",)),
)

PUBLIC_FORMATS: Final = "; ".join(f"{f.sets}: {', '.join(f.columns)}" for f in _FORMATS)
"""The sets that are read, each with the columns it is known by."""

Where = Mapping[str, str | Sequence[str]]
"""Rows to keep: a column, and the value or values it is to have."""


def is_public(row: Row) -> bool:
    """Whether an object that might be an item of a suite's own files is a row of a public set.

    An own item has nothing but `prompt` or `messages` beside its `id`; a row of a public set has a
    column that tells it apart.
    """
    return any(set(f.columns) <= set(row.cells) for f in _FORMATS[:-1])


def read_prompts(path: Path, where: Where) -> dict[str, str]:
    """The prompts of a file by name.

    Raises:
        SuiteError: The file is none of the formats, a column of `where` is not there, a row has no
            prompt, or two have one name.
    """
    rows = read_rows(path)
    columns = set().union(*(row.cells for row in rows))
    form = next((f for f in _FORMATS if set(f.columns) <= columns), None)
    if form is None:
        raise SuiteError(
            [
                f"{path}: columns are {', '.join(sorted(columns))}; expected those of a known set "
                f"({PUBLIC_FORMATS})"
            ]
        )
    for name in where:
        if name.lower() not in columns:
            raise SuiteError(
                [f"{path}: no column {name}, which where names; there are {sorted(columns)}"]
            )
    prompts: dict[str, str] = {}
    problems: list[str] = []
    for place, row in enumerate(rows, 1):
        if not _is_kept(row, where):
            continue
        name = next((row.text(n) for n in form.names if row.text(n)), str(place))
        if not row.text(form.prompt):
            problems.append(f"{path}:{row.line}: {form.prompt} is empty")
        elif name in prompts:
            problems.append(f"{path}:{row.line}: {name!r} stands twice")
        else:
            prompts[name] = _prompt(row, form)
    if not prompts and not problems:
        problems.append(f"{path}: no row is as where says")
    if problems:
        raise SuiteError(problems)
    return prompts


def _is_kept(row: Row, where: Where) -> bool:
    return all(
        row.text(name.lower()) in ([values] if isinstance(values, str) else values)
        for name, values in where.items()
    )


def _prompt(row: Row, form: _Format) -> str:
    prompt = row.text(form.prompt)
    if form.before and row.text(form.before):
        return f"{row.text(form.before)}\n\n---\n\n{prompt}"
    if form.after and row.text(form.after):
        return f"{prompt}\n\n{row.text(form.after)}"
    return prompt
