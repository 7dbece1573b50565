"""Rows of data: an example of one side, or a pair; read, made distinct and split."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from steering.errors import InvalidFieldError
from steering.fields import check_keys, require, shown

from .example import Example

__all__ = ["MAX_EXAMPLES", "SIDES", "Row", "columns", "distinct", "parse_rows", "split", "unleaked"]

MAX_EXAMPLES: Final = 4096
"""Most examples of one set: their activations at every candidate layer are held in memory."""

SIDES: Final = ("positive", "negative")

Row = tuple[Example | None, Example | None]
"""A pair; or one example on its own side."""


def parse_rows(data: Mapping[str, Any], path: str) -> list[Row]:
    """Read `{positive, negative}` or `{pairs: [{positive, negative}]}`.

    Raises:
        InvalidFieldError: Not of that form, or too many; names the example.
    """
    if "pairs" not in data:
        rows: list[Row] = [(example, None) for example in _side(data, "positive", path)]
        return rows + [(None, example) for example in _side(data, "negative", path)]
    for side in SIDES:
        if side in data:
            raise InvalidFieldError(
                f"{path}.{side} is given beside {path}.pairs; give one or the other",
                param=f"{path}.{side}",
            )
    pairs = _items(data["pairs"], f"{path}.pairs")
    rows = []
    for index, pair in enumerate(pairs):
        param = f"{path}.pairs[{index}]"
        if not isinstance(pair, Mapping):
            raise InvalidFieldError(
                f"{param} is {shown(pair)}; expected an object with positive and negative",
                param=param,
            )
        check_keys(pair, SIDES, noun="a pair", prefix=f"{param}.")
        positive, negative = (Example.parse(pair.get(s), f"{param}.{s}") for s in SIDES)
        rows.append((positive, negative))
    return rows


def _side(data: Mapping[str, Any], side: str, path: str) -> list[Example]:
    param = f"{path}.{side}"
    try:
        items = _items(require(data, side, noun=path), param)
    except InvalidFieldError as error:
        error.param = param
        raise
    return [Example.parse(item, f"{param}[{index}]") for index, item in enumerate(items)]


def _items(value: Any, param: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise InvalidFieldError(
            f"{param} is {shown(value)}; expected a list of examples", param=param
        )
    if len(value) > MAX_EXAMPLES:
        raise InvalidFieldError(
            f"{param} has {len(value)} examples; expected at most {MAX_EXAMPLES}", param=param
        )
    return value


def distinct(rows: Sequence[Row]) -> tuple[list[Row], list[str], list[str]]:
    """Rows without repeats and without examples of both sides, and where those dropped stood."""
    sides = [{e.canonical for e in column} for column in columns(rows)]
    both = sides[0] & sides[1]
    seen: set[tuple[str | None, ...]] = set()
    kept: list[Row] = []
    duplicates: list[str] = []
    ambiguous: list[str] = []
    for row in rows:
        key = tuple(None if example is None else example.canonical for example in row)
        if any(example is not None and example.canonical in both for example in row):
            ambiguous += _params(row)
        elif key in seen:
            duplicates += _params(row)
        else:
            kept.append(row)
        seen.add(key)
    return kept, duplicates, ambiguous


def split(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Hold out a share of the subjects, alike among those of one side, the other, and both."""
    subjects: dict[str, set[int]] = {}
    for row in rows:
        for side, example in enumerate(row):
            if example is not None:
                subjects.setdefault(_subject(row), set()).add(side)
    strata: dict[tuple[int, ...], list[str]] = {}
    for subject in sorted(subjects):
        strata.setdefault(tuple(sorted(subjects[subject])), []).append(subject)
    held_out: set[str] = set()
    for key in sorted(strata):
        chosen = random.Random(f"split {seed} {key}").sample(
            strata[key], k=round(share * len(strata[key]))
        )
        held_out.update(chosen)
    return (
        [row for row in rows if _subject(row) not in held_out],
        [row for row in rows if _subject(row) in held_out],
    )


def unleaked(train: Sequence[Row], validation: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Training rows in which no user says what one in validation does, and where others stood."""
    held_out = {example.subject for row in validation for example in row if example is not None}
    kept, leaked = [], []
    for row in train:
        if any(example is not None and example.subject in held_out for example in row):
            leaked += _params(row)
        else:
            kept.append(row)
    return kept, leaked


def _subject(row: Row) -> str:
    return " || ".join(example.subject for example in row if example is not None)


def _params(row: Row) -> list[str]:
    found = [example.param for example in row if example is not None]
    return found if len(found) == 1 else [found[0].removesuffix(".positive")]


def columns(rows: Iterable[Row]) -> tuple[list[Example], list[Example]]:
    """The positive and the negative examples."""
    listed = list(rows)
    return (
        [positive for positive, _ in listed if positive is not None],
        [negative for _, negative in listed if negative is not None],
    )
