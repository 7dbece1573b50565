"""What is refused over HTTP, row for row as it was recorded.

`python -m tests.contract.refusals` records anew; a commit that does so says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .refusals.documents import CASES
from .refusals.runner import Rows, answers_of, read_table
from .refusals.stored import Case

_MOST_TOLD = 40


@pytest.fixture(scope="module")
def table() -> dict[str, Rows]:
    return read_table()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_refusals_are_as_recorded(case: Case, table: dict[str, Rows], tmp_path: Path) -> None:
    recorded, found = table[case.name], await answers_of(case, tmp_path)
    keys = list(dict.fromkeys([*recorded, *found]))
    changed = [key for key in keys if recorded.get(key) != found.get(key)]
    told = [
        f"{place or 'the document'} = {what}\n  was {recorded.get((place, what))}\n"
        f"  is  {found.get((place, what))}"
        for place, what in changed[:_MOST_TOLD]
    ]
    assert not changed, f"{len(changed)} of {len(keys)} rows differ:\n" + "\n".join(told)


def test_every_recorded_case_is_asked(table: dict[str, Rows]) -> None:
    assert sorted(table) == sorted(case.name for case in CASES)
