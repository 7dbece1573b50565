"""Reading a suite: every problem at once, each with the line it is on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .data import Item, read_items
from .errors import SuiteError
from .suite import DivergenceMeasure, PerplexityMeasure, RateMeasure, Suite, TopicalMeasure

_Place = tuple[str | int, ...]


@dataclass(frozen=True)
class LoadedSuite:
    """A suite with its data.

    Attributes:
        suite: The suite as stated.
        items: The items of each dataset, by its name.
    """

    suite: Suite
    items: dict[str, tuple[Item, ...]]


def load_suite(path: Path, *, limit: int | None = None) -> LoadedSuite:
    """Read a suite and its data files.

    Args:
        path: The YAML file.
        limit: Most items of each dataset, below the dataset's own limit.

    Raises:
        SuiteError: Something is wrong; the error lists every problem.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        node, document = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SuiteError([f"{path}: cannot be read: {error}"]) from None
    try:
        suite = Suite.model_validate(document)
    except ValidationError as error:
        found = [(problem["loc"], problem) for problem in error.errors()]
        raise SuiteError(
            [_located(path, node, loc, _message(problem)) for loc, problem in found]
        ) from None
    wrong = [_located(path, node, loc, message) for loc, message in _unresolved(suite)]
    if wrong:
        raise SuiteError(wrong)
    return LoadedSuite(suite, _read_all(suite, path.parent, limit))


def _read_all(suite: Suite, folder: Path, limit: int | None) -> dict[str, tuple[Item, ...]]:
    items: dict[str, tuple[Item, ...]] = {}
    problems: list[str] = []
    for name, dataset in suite.datasets.items():
        most = min((n for n in (dataset.limit, limit) if n is not None), default=None)
        try:
            items[name] = read_items(folder / dataset.file, dataset.kind, most, dataset.where)
        except SuiteError as error:
            problems.extend(error.problems)
    if problems:
        raise SuiteError(problems)
    return items


def _message(problem: Any) -> str:
    got = problem.get("input")
    shown = "" if isinstance(got, dict | list) or got is None else f" (got {got!r})"
    return f"{problem['msg'].removeprefix('Value error, ')}{shown}"


def _unresolved(suite: Suite) -> Iterator[tuple[_Place, str]]:
    """Names that lead nowhere, and names that stand twice."""
    for key in ("treatments", "measures"):
        names = [part.name for part in getattr(suite, key)]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield (key, index, "name"), f"{name!r} stands twice"
    calibration = suite.controls.calibration
    if calibration is not None and not _is_kind(suite, calibration, "chat"):
        yield ("controls", "calibration"), f"{calibration!r} is not a chat dataset"
    for index, measure in enumerate(suite.measures):
        kind = "text" if isinstance(measure, PerplexityMeasure) else "chat"
        if not _is_kind(suite, measure.dataset, kind):
            known = sorted(n for n, d in suite.datasets.items() if d.kind == kind)
            message = f"{measure.dataset!r} is not a {kind} dataset; there are {known}"
            yield ("measures", index, "dataset"), message
        yield from _unknown_judges(suite, index)
    if any(isinstance(m, DivergenceMeasure) for m in suite.measures) and suite.temperature > 0:
        yield ("temperature",), "a measure of kind kl needs greedy answers: temperature 0"


def _unknown_judges(suite: Suite, index: int) -> Iterator[tuple[_Place, str]]:
    measure = suite.measures[index]
    if not isinstance(measure, RateMeasure | TopicalMeasure):
        return
    own: _Place = ("measures", index)
    asked = [(own, measure.judge, measure.label)]
    if isinstance(measure, RateMeasure) and measure.second is not None:
        asked.append(((*own, "second"), measure.second.judge, measure.second.label))
    for place, judge, label in asked:
        if judge not in suite.judge_names:
            yield (*place, "judge"), f"{judge!r} is no judge; there are {sorted(suite.judge_names)}"
        elif label not in (labels := suite.judge_spec(judge).labels):
            yield (*place, "label"), f"{judge!r} never says {label!r}; it says {sorted(labels)}"


def _is_kind(suite: Suite, dataset: str, kind: str) -> bool:
    return dataset in suite.datasets and suite.datasets[dataset].kind == kind


def _located(path: Path, node: Any, loc: _Place, message: str) -> str:
    """`file:line: field: message`; parts of `loc` that are no field (tags of unions) are passed."""
    field = ""
    for part in loc:
        child = _child(node, part)
        if child is None and part != loc[-1]:
            continue
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
        node = child or node
    line = 1 if node is None else node.start_mark.line + 1
    return f"{path}:{line}: {field or 'the suite'}: {message}"


def _child(node: Any, part: str | int) -> Any:
    if isinstance(part, int):
        values = node.value if getattr(node, "id", "") == "sequence" else []
        return values[part] if part < len(values) else None
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    return next((value for key, value in pairs if key.value == part), None)
