"""Documents with one thing wrong: every place of a valid document, spoiled one way at a time."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = ["ABSENT", "UNKNOWN", "VALUES", "Place", "read_place", "spoiled", "write_place"]

Place = tuple[str | int, ...]

ABSENT: Final = "absent"
UNKNOWN: Final = "an unknown field"

VALUES: Final[dict[str, str]] = {
    text: text
    for text in (
        *("null", "true", "-1", "0", "2", "1.0", "1.5", "1e39", "9223372036854775808"),
        *('""', '"x"', '"1"'),
        *("[]", "[1]", '["x"]', "[null]", "[[1]]", "{}", '{"a": 1}'),
    )
} | {"a long text": json.dumps("x" * 300)}
"""JSON texts that stand in place of a value, by what the table calls them."""

_MARK: Final = '"@spoiled@"'


def spoiled(
    document: dict[str, Any], below: Place = (), skip: Sequence[str] = ()
) -> Iterator[tuple[str, str, str]]:
    """Every spoiled copy of `document` as (place, what stands there, JSON text).

    Only what lies below `below` is spoiled, and fields named in `skip` are not gone into. Of a
    list the first item stands for all.
    """
    for place in _places(read_place(document, below), below, frozenset(skip)):
        path = write_place(place)
        if place and isinstance(place[-1], str):
            without = copy.deepcopy(document)
            del read_place(without, place[:-1])[place[-1]]
            yield path, ABSENT, json.dumps(without)
        if isinstance(read_place(document, place), dict):
            beside = copy.deepcopy(document)
            read_place(beside, place)["surplus"] = 1
            yield path, UNKNOWN, json.dumps(beside)
        if place:
            marked = copy.deepcopy(document)
            read_place(marked, place[:-1])[place[-1]] = json.loads(_MARK)
            text = json.dumps(marked)
            for what, value in VALUES.items():
                yield path, what, text.replace(_MARK, value)


def read_place(document: Any, place: Place) -> Any:
    """What stands at a place."""
    for step in place:
        document = document[step]
    return document


def write_place(place: Place) -> str:
    """A place as errors write it: `steering.interventions[0].layers`."""
    path = ""
    for step in place:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _places(value: Any, place: Place, skip: frozenset[str]) -> Iterator[Place]:
    yield place
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, (*place, name), skip) if name not in skip else ()
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*place, 0), skip)
