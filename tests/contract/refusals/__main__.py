"""Record what is refused today: python -m tests.contract.refusals [--only PART_OF_A_CASE_NAME]."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from .documents import CASES
from .runner import TABLE, answers_of, read_table, write_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="record the cases with this in their name")
    only = parser.parse_args().only
    known = read_table() if TABLE.exists() else {}
    table = {}
    for case in CASES:
        if only not in case.name and case.name in known:
            table[case.name] = known[case.name]
            continue
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            table[case.name] = asyncio.run(answers_of(case, Path(folder)))
        seconds = time.process_time() - begun
        sys.stdout.write(f"{len(table[case.name]):5} rows {seconds:5.1f} s  {case.name}\n")
    write_table(table)


if __name__ == "__main__":
    main()
