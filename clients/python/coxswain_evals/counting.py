"""From the rows of a cell to one value per item, for each kind of measure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .data import Item
from .run_folder import Row
from .statistics import Statistic, Values
from .suite import (
    DegenerateMeasure,
    DistinctMeasure,
    DivergenceMeasure,
    Measure,
    PerplexityMeasure,
    RateMeasure,
    TopicalMeasure,
)

_WORD: Final = re.compile(r"\w+(?:['\u2019]\w+)*")
_SENTENCE_END: Final = re.compile(r"[.!?\n]+")
_LEAST_WORDS: Final = 3  # "Yes." twice is emphasis


@dataclass(frozen=True)
class Rows:
    """Everything kept of one arm on one dataset.

    Attributes:
        of_task: Rows by task: `answers`, `scores`, `kl`.
        labels: The label of each judge for each item; None where what it said cannot be parsed.
        items: The items of the dataset, by id.
    """

    of_task: Mapping[str, Sequence[Row]]
    labels: Mapping[str, Mapping[str, str | None]]
    items: Mapping[str, Item]


@dataclass(frozen=True)
class Counted:
    """A measure on one arm's rows.

    Attributes:
        values: Value and weight of each item that has one.
        missing: Number of items without a value.
        disagreements: Number of items on which a second judge says otherwise; None without one.
        second_missing: Number of items on which the second judge is unparsable.
    """

    values: Values
    missing: int
    disagreements: int | None = None
    second_missing: int = 0


def task_of(measure: Measure) -> str:
    """The task that has to be asked for a measure: `answers`, `scores` or `kl`."""
    match measure:
        case PerplexityMeasure():
            return "scores"
        case DivergenceMeasure():
            return "kl"
    return "answers"


def statistic_of(measure: Measure) -> Statistic:
    """The statistic that is made of a measure's values."""
    match measure:
        case PerplexityMeasure():
            return Statistic.PERPLEXITY
        case DivergenceMeasure() | DistinctMeasure():
            return Statistic.MEAN
    return Statistic.RATE


def count(measure: Measure, rows: Rows) -> Counted:
    """A measure on one arm's rows."""
    found = {row["item"]: row for row in rows.of_task[task_of(measure)]}
    match measure:
        case RateMeasure():
            return _rate(measure, rows, found)
        case TopicalMeasure():
            labels = rows.labels[measure.judge]
            known = {item for item in found if labels[item] is not None}
            values = {
                item: (float(labels[item] != measure.label and _is_topical(rows, found, item)), 1.0)
                for item in known
            }
            return Counted(values, len(found) - len(known))
        case DegenerateMeasure(min_distinct=least):
            return _of_answers(found, lambda text: float(is_degenerate(text, least)))
        case DistinctMeasure(n=n):
            return _of_answers(found, lambda text: distinct_share(text, n))
        case PerplexityMeasure():
            return _of_tokens(found, "token_logprobs", -1.0)
        case DivergenceMeasure():
            return _of_tokens(found, "kl", 1.0)


def _rate(measure: RateMeasure, rows: Rows, found: Mapping[str, Row]) -> Counted:
    labels = rows.labels[measure.judge]
    values = {i: (float(labels[i] == measure.label), 1.0) for i in found if labels[i] is not None}
    missing = len(found) - len(values)
    if measure.second is None:
        return Counted(values, missing)
    others, label = rows.labels[measure.second.judge], measure.second.label
    both = [item for item in values if others[item] is not None]
    differing = sum(values[item][0] != (others[item] == label) for item in both)
    unread = sum(others[item] is None for item in found)
    return Counted(values, missing, differing, unread)


def _is_topical(rows: Rows, found: Mapping[str, Row], item: str) -> bool:
    text = found[item]["answer"].lower()
    groups = rows.items[item].topic
    return all(any(phrase.lower() in text for phrase in group) for group in groups)


def _of_answers(found: Mapping[str, Row], value: Callable[[str], float]) -> Counted:
    return Counted({item: (value(row["answer"]), 1.0) for item, row in found.items()}, 0)


def _of_tokens(found: Mapping[str, Row], key: str, factor: float) -> Counted:
    """Mean per token of each item, weighted by its tokens; items without tokens are missing."""
    values = {
        item: (factor * sum(row[key]) / len(row[key]), float(len(row[key])))
        for item, row in found.items()
        if row[key]
    }
    return Counted(values, len(found) - len(values))


def distinct_share(text: str, n: int) -> float:
    """Distinct n-grams of words over all of them, whatever the case; 1 for a text with none.

    Source: Li et al. 2016, arXiv:1510.03055 (distinct-n).
    """
    words = _WORD.findall(text.lower())
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def is_degenerate(text: str, min_distinct: float) -> bool:
    """Whether a text is empty, says a sentence of three words or more twice, or repeats itself.

    Args:
        text: The answer.
        min_distinct: Least share of distinct bigrams of a text that does not.
    """
    sentences = [tuple(_WORD.findall(part.lower())) for part in _SENTENCE_END.split(text)]
    said = [sentence for sentence in sentences if len(sentence) >= _LEAST_WORDS]
    is_empty = not any(sentences)
    return is_empty or len(set(said)) < len(said) or distinct_share(text, 2) < min_distinct
