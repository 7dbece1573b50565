"""Two sets of examples to tell apart, without duplicates, split into training and validation."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from steering.documents import Document, ListOf, Number, refused
from steering.errors import FitError, InvalidFieldError

from .example import Example, place_examples

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


def _at_most(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) > MAX_EXAMPLES:
        raise refused(f"has {len(value)} examples; expected at most {MAX_EXAMPLES}")
    return value


_Bounded = (
    BeforeValidator(_at_most),
    ListOf("examples"),
    Field(json_schema_extra={"maxItems": MAX_EXAMPLES}),
)


class Pair(Document):
    """Two examples that belong together."""

    noun: ClassVar[str] = "a pair"
    form: ClassVar[str] = "an object with positive and negative"
    names_place: ClassVar[bool] = True

    positive: Example = Field(description="Shows the behaviour.")
    negative: Example = Field(description="Does not show it.")

    @classmethod
    def prepare(cls, document: dict[str, Any]) -> dict[str, Any]:
        """What is absent is refused like what is null."""
        return {"positive": None, "negative": None} | document


class _Sides(Document):
    """Two sets of examples, or pairs of them."""

    null_is_absent: ClassVar[bool] = False

    positive: Annotated[tuple[Example, ...] | None, *_Bounded] = Field(
        default=None, description="Examples that show the behaviour."
    )
    negative: Annotated[tuple[Example, ...] | None, *_Bounded] = Field(
        default=None, description="Examples that do not show it."
    )
    pairs: Annotated[tuple[Pair, ...] | None, *_Bounded] = Field(
        default=None, description="In place of the two sets: examples that belong together."
    )

    @classmethod
    def prepare(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Refuse pairs beside sets, and one set alone."""
        if set(document) - cls.known():
            return document
        path = cls.prefix.removesuffix(".")
        for side in SIDES:
            if "pairs" in document and side in document:
                raise InvalidFieldError(
                    f"{path}.{side} is given beside {path}.pairs; give one or the other",
                    param=side,
                )
            if "pairs" not in document and document.get(side) is None:
                raise InvalidFieldError(f"{path} has no {side}; it is required", param=side)
        return document


class ValidationData(_Sides):
    """Examples to judge on, in the form of those to learn from."""

    noun: ClassVar[str] = "data.validation"
    prefix: ClassVar[str] = "data.validation."


def _share(share: float) -> float:
    if not _MIN_SHARE <= share <= 0.5:
        raise refused(f"is {share:g}; expected a share from {_MIN_SHARE:g} to 0.5, or examples")
    return share


def _validation_form(value: Any) -> str:
    return "examples" if isinstance(value, Mapping | ValidationData) else "share"


class ContrastData(_Sides):
    """What a direction is learnt from: examples of two behaviours, and how to judge it."""

    noun: ClassVar[str] = "data"
    prefix: ClassVar[str] = "data."

    validation: Annotated[
        Annotated[
            Number,
            AfterValidator(_share),
            Field(json_schema_extra={"minimum": _MIN_SHARE, "maximum": 0.5}),
            Tag("share"),
        ]
        | Annotated[ValidationData, Tag("examples")],
        Discriminator(_validation_form),
    ] = Field(
        default=DEFAULT_VALIDATION,
        description="Share of the examples that is held out, or examples of their own.",
    )

    @classmethod
    def prepare(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Refuse as for either part, and parts of different forms."""
        document, own = super().prepare(document), document.get("validation")
        if isinstance(own, Mapping) and ("pairs" in own) is not ("pairs" in document):
            if unknown := next((key for key in own if key not in ValidationData.known()), None):
                raise ValidationData.unknown(unknown).under("validation")
            raise InvalidFieldError(
                "data.validation and data are not both pairs; expected the same form",
                param="validation",
            )
        return document


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
    def of(cls, data: ContrastData, seed: int) -> Self:
        """Split what a request gives, by `seed` alike for either side; leaks are dropped.

        Raises:
            FitError: Too few different examples.
        """
        rows, is_paired = _rows(data, "data"), data.pairs is not None
        own = data.validation
        share = own if isinstance(own, float) else 0.0
        held_out = [] if isinstance(own, float) else _rows(own, "data.validation")
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


def _rows(data: _Sides, path: str) -> list[_Row]:
    """The examples of two sets or of pairs, each with its place."""
    if data.pairs is not None:
        return [
            (pair.positive.placed(f"{place}.positive"), pair.negative.placed(f"{place}.negative"))
            for place, pair in ((f"{path}.pairs[{i}]", pair) for i, pair in enumerate(data.pairs))
        ]
    positive, negative = (
        place_examples(getattr(data, side) or (), f"{path}.{side}") for side in SIDES
    )
    return [*((example, None) for example in positive), *((None, example) for example in negative)]


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
