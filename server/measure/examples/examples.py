"""Two sets of examples to tell apart, without duplicates, split into training and validation."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from steering.errors import FitError, InvalidFieldError, shown
from steering.fields import check_keys, number, require

from .example import Example

__all__ = [
    "DEFAULT_VALIDATION",
    "MAX_EXAMPLES",
    "MIN_TRAIN",
    "MIN_VALIDATION",
    "SIDES",
    "ContrastSets",
    "Examples",
]

MAX_EXAMPLES: Final = 4096
"""Most examples of one set: their activations at every candidate layer are held in memory."""

SIDES: Final = ("positive", "negative")

_Row = tuple[Example | None, Example | None]
"""A pair; or one example on its own side."""

MIN_TRAIN: Final = 8
"""Fewest different examples of each set that anything is fitted on; use many more."""

MIN_VALIDATION: Final = 4
"""Fewest of each set that are held out."""

DEFAULT_VALIDATION: Final = 0.2

_MIN_SHARE: Final = MIN_VALIDATION / MAX_EXAMPLES  # less never holds out enough


@dataclass(frozen=True, slots=True)
class ContrastSets:
    """Examples of both sides; of pairs, the i-th of each belong together."""

    positive: tuple[Example, ...]
    negative: tuple[Example, ...]

    @property
    def all(self) -> tuple[Example, ...]:
        """Both sides, the positive one first."""
        return self.positive + self.negative


@dataclass(frozen=True, slots=True)
class Examples:
    """What a direction is fitted on, and what it is judged on.

    Examples in which the user says the same (`Example.subject`) are on one side of the split, so
    that validation measures what was learnt rather than what was remembered.

    Attributes:
        train: Examples to fit on.
        validation: Examples held out.
        is_paired: Whether the i-th of both sides belong together.
        sha256: Hash of each side as given, before anything was dropped.
        duplicates: Where dropped examples stood that their set already held.
        leaked: Where dropped examples stood that both sides held, or that validation held too.
    """

    train: ContrastSets
    validation: ContrastSets
    is_paired: bool
    sha256: Mapping[str, str]
    duplicates: tuple[str, ...]
    leaked: tuple[str, ...]

    @classmethod
    def parse(cls, data: Mapping[str, Any], seed: int) -> Self:
        """Read `{positive, negative}` or `{pairs: [{positive, negative}]}`, and `validation`.

        `validation` is a share of the examples, split off by `seed` alike for either side, or
        examples of its own in the same form; training examples like those are dropped.

        Raises:
            InvalidFieldError: Not of that form; names the example.
            FitError: Too few different examples.
        """
        rows = _parse_rows(data, "data")
        is_paired = "pairs" in data
        held_out, share = _held_out(data)
        kept, duplicates, ambiguous = _distinct(rows)
        others, more_duplicates, more_ambiguous = _distinct(held_out)
        if share:
            kept, others = _split(kept, share, seed)
        kept, leaked = _unleaked(kept, others)
        examples = cls(
            train=_sides(kept),
            validation=_sides(others),
            is_paired=is_paired,
            sha256={side: _digest(part) for side, part in zip(SIDES, _columns(rows), strict=True)},
            duplicates=(*duplicates, *more_duplicates),
            leaked=(*ambiguous, *more_ambiguous, *leaked),
        )
        _check_counts(examples, share)
        return examples

    def notes(self) -> tuple[str, ...]:
        """Return sentences that say which examples were dropped, and why."""
        said = []
        if self.duplicates:
            said.append(f"dropped as duplicates of their set: {_listed(self.duplicates)}")
        if self.leaked:
            said.append(
                f"dropped because the other side or validation has it: {_listed(self.leaked)}"
            )
        return tuple(said)


def _held_out(data: Mapping[str, Any]) -> tuple[list[_Row], float]:
    """Return validation examples given as such, or none and the share to split off."""
    own = data.get("validation", DEFAULT_VALIDATION)
    if not isinstance(own, Mapping):
        return [], _share(own)
    check_keys(own, {*SIDES, "pairs"}, noun="data.validation", prefix="data.validation.")
    if ("pairs" in own) is not ("pairs" in data):
        raise InvalidFieldError(
            "data.validation and data are not both pairs; expected the same form",
            param="data.validation",
        )
    return _parse_rows(own, "data.validation"), 0.0


def _share(value: Any) -> float:
    share = number(value, "data.validation")
    if not _MIN_SHARE <= share <= 0.5:
        raise InvalidFieldError(
            f"data.validation is {share:g}; expected a share from {_MIN_SHARE:g} to 0.5, or "
            "examples",
            param="data.validation",
        )
    return share


def _check_counts(examples: Examples, share: float) -> None:
    for side in SIDES:
        num_train = len(getattr(examples.train, side))
        num_held_out = len(getattr(examples.validation, side))
        if num_train >= MIN_TRAIN and num_held_out >= MIN_VALIDATION:
            continue
        dropped = len(examples.duplicates) + len(examples.leaked)
        remedy = "give more examples"
        if share:
            needed = max(MIN_TRAIN / (1 - share), MIN_VALIDATION / share)
            remedy = f"give about {round(needed)} different examples or more"
        raise FitError(
            f"data.{side} leaves {num_train} examples to fit on and {num_held_out} to validate on "
            f"({dropped} of both sets dropped as duplicates or leaks); expected at least "
            f"{MIN_TRAIN} and {MIN_VALIDATION}; {remedy}",
            param="data.pairs" if examples.is_paired else f"data.{side}",
        )


def _sides(rows: Sequence[_Row]) -> ContrastSets:
    positive, negative = _columns(rows)
    return ContrastSets(tuple(positive), tuple(negative))


def _digest(examples: Sequence[Example]) -> str:
    state = hashlib.sha256()
    for example in examples:
        state.update(example.canonical.encode("utf-8", "surrogatepass") + b"\n")
    return state.hexdigest()


def _listed(params: Sequence[str], most: int = 20) -> str:
    more = f" and {len(params) - most} more" if len(params) > most else ""
    return ", ".join(params[:most]) + more


def _parse_rows(data: Mapping[str, Any], path: str) -> list[_Row]:
    """Read `{positive, negative}` or `{pairs: [{positive, negative}]}`.

    Raises:
        InvalidFieldError: Not of that form, or too many; names the example.
    """
    if "pairs" not in data:
        rows: list[_Row] = [(example, None) for example in _side(data, "positive", path)]
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
        raise error.at(param) from None
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


def _distinct(rows: Sequence[_Row]) -> tuple[list[_Row], list[str], list[str]]:
    """Return rows without repeats and without examples that both sides hold.

    Beside them stand the places of the repeats, and of what both sides hold.
    """
    sides = [{e.canonical for e in column} for column in _columns(rows)]
    both = sides[0] & sides[1]
    seen: set[tuple[str | None, ...]] = set()
    kept: list[_Row] = []
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


def _split(rows: Sequence[_Row], share: float, seed: int) -> tuple[list[_Row], list[_Row]]:
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


def _unleaked(train: Sequence[_Row], validation: Sequence[_Row]) -> tuple[list[_Row], list[str]]:
    """Return training rows in which no user says what one in validation says.

    Beside them stand the places of the other rows.
    """
    held_out = {example.subject for row in validation for example in row if example is not None}
    kept, leaked = [], []
    for row in train:
        if any(example is not None and example.subject in held_out for example in row):
            leaked += _params(row)
        else:
            kept.append(row)
    return kept, leaked


def _subject(row: _Row) -> str:
    return " || ".join(example.subject for example in row if example is not None)


def _params(row: _Row) -> list[str]:
    found = [example.param for example in row if example is not None]
    return found if len(found) == 1 else [found[0].removesuffix(".positive")]


def _columns(rows: Iterable[_Row]) -> tuple[list[Example], list[Example]]:
    """Return the positive and the negative examples."""
    listed = list(rows)
    return (
        [positive for positive, _ in listed if positive is not None],
        [negative for _, negative in listed if negative is not None],
    )
