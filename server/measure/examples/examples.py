"""Two sets of examples to tell apart, without duplicates, split into training and validation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from steering.errors import FitError, InvalidFieldError
from steering.fields import check_keys, number

from .example import Example
from .rows import MAX_EXAMPLES, SIDES, Row, columns, distinct, parse_rows, split, unleaked

__all__ = [
    "DEFAULT_VALIDATION",
    "MIN_TRAIN",
    "MIN_VALIDATION",
    "ContrastSets",
    "Examples",
]

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
        """Positive ones first."""
        return self.positive + self.negative


@dataclass(frozen=True, slots=True)
class Examples:
    """What a direction is fitted on, and what it is judged on.

    Examples in which the user says the same (`Example.subject`) are on one side of the split, so
    that validation measures what was learnt rather than what was remembered.

    Attributes:
        train: Fitted on.
        validation: Held out.
        is_paired: Whether the i-th of both sides belong together.
        sha256: Hash of each side as given, before anything was dropped.
        duplicates: Where examples stood that their set held already.
        leaked: Where examples stood that both sides held, or that validation held too.
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
        rows = parse_rows(data, "data")
        is_paired = "pairs" in data
        held_out, share = _held_out(data)
        kept, duplicates, ambiguous = distinct(rows)
        others, more_duplicates, more_ambiguous = distinct(held_out)
        if share:
            kept, others = split(kept, share, seed)
        kept, leaked = unleaked(kept, others)
        examples = cls(
            train=_sides(kept),
            validation=_sides(others),
            is_paired=is_paired,
            sha256={side: _digest(part) for side, part in zip(SIDES, columns(rows), strict=True)},
            duplicates=(*duplicates, *more_duplicates),
            leaked=(*ambiguous, *more_ambiguous, *leaked),
        )
        _check_counts(examples, share)
        return examples

    def notes(self) -> tuple[str, ...]:
        """What was dropped, for people."""
        said = []
        if self.duplicates:
            said.append(f"dropped as duplicates of their set: {_listed(self.duplicates)}")
        if self.leaked:
            said.append(
                f"dropped because the other side or validation has it: {_listed(self.leaked)}"
            )
        return tuple(said)


def _held_out(data: Mapping[str, Any]) -> tuple[list[Row], float]:
    """Validation examples given as such, or none and the share to split off."""
    own = data.get("validation", DEFAULT_VALIDATION)
    if not isinstance(own, Mapping):
        return [], _share(own)
    check_keys(own, {*SIDES, "pairs"}, noun="data.validation", prefix="data.validation.")
    if ("pairs" in own) is not ("pairs" in data):
        raise InvalidFieldError(
            "data.validation and data are not both pairs; expected the same form",
            param="data.validation",
        )
    return parse_rows(own, "data.validation"), 0.0


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


def _sides(rows: Sequence[Row]) -> ContrastSets:
    positive, negative = columns(rows)
    return ContrastSets(tuple(positive), tuple(negative))


def _digest(examples: Sequence[Example]) -> str:
    state = hashlib.sha256()
    for example in examples:
        state.update(example.canonical.encode("utf-8", "surrogatepass") + b"\n")
    return state.hexdigest()


def _listed(params: Sequence[str], most: int = 20) -> str:
    more = f" and {len(params) - most} more" if len(params) > most else ""
    return ", ".join(params[:most]) + more
