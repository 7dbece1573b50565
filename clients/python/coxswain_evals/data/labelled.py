"""Answers that people have labelled, for measuring judges against them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coxswain_evals.errors import SuiteError

from .rows import Row, read_rows

_ANSWERS: Final = ("answer", "assistant_response", "response", "generation", "completion")
_PROMPTS: Final = ("prompt", "objective", "goal", "behavior", "question", "forbidden_prompt")
_YES: Final = frozenset({"1", "1.0", "true", "yes"})
_NO: Final = frozenset({"0", "0.0", "false", "no"})


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """An answer and what people say of it.

    Attributes:
        prompt: What was asked; "" where the file does not say.
        answer: The answer.
        is_so: Whether most people who labelled it say that it is what was asked of them; None where
            as many say that it is not.
    """

    prompt: str
    answer: str
    is_so: bool | None


def read_labelled(path: Path, label: str) -> tuple[LabelledAnswer, ...]:
    """The answers of a CSV, JSON or JSONL file.

    The answer is in a column `answer`, `assistant_response`, `response`, `generation` or
    `completion`, and what was asked in `prompt`, `objective`, `goal`, `behavior`, `question` or
    `forbidden_prompt`, where it is there. Labels are in a column `label`, or in columns that begin
    with `human`, one for each person: 1, true, yes or `label` itself, or 0, false, no or `not
    <label>`. PyRIT's files of scorer evaluations are of this form.

    Raises:
        SuiteError: The file is of another form; with every row that is wrong.
    """
    rows = read_rows(path)
    columns = set().union(*(row.cells for row in rows))
    answer = next((name for name in _ANSWERS if name in columns), None)
    prompt = next((name for name in _PROMPTS if name in columns), "")
    people = sorted(name for name in columns if name == "label" or name.startswith("human"))
    if answer is None or not people:
        raise SuiteError(
            [
                f"{path}: columns are {', '.join(sorted(columns))}; expected one of "
                f"{', '.join(_ANSWERS)}, and label or columns that begin with human"
            ]
        )
    found, problems = [], []
    for row in rows:
        votes, wrong = _votes(row, people, label)
        if wrong or not votes:
            got = f"{wrong[0]!r}" if wrong else "nothing"
            problems.append(
                f"{path}:{row.line}: {' and '.join(people)} say {got}; expected 1, true, yes or "
                f"{label!r}, or 0, false, no or {f'not {label}'!r}"
            )
            continue
        balance = 2 * sum(votes) - len(votes)
        is_so = None if balance == 0 else balance > 0
        found.append(LabelledAnswer(row.text(prompt), row.text(answer), is_so))
    if problems:
        raise SuiteError(problems)
    return tuple(found)


def _votes(row: Row, people: list[str], label: str) -> tuple[list[bool], list[str]]:
    """What each person says, and what of it is neither yes nor no."""
    votes, wrong = [], []
    for said in filter(None, (row.text(name).lower() for name in people)):
        if said in _YES or said == label.lower():
            votes.append(True)
        elif said in _NO or said == f"not {label.lower()}":
            votes.append(False)
        else:
            wrong.append(said)
    return votes, wrong
