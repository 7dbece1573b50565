"""Handle on the process of `uploader.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_ROOT = Path(__file__).parents[3]


class Uploader:
    """Starts uploads in a process of their own and kills them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.store.uploader"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def start(self, data_dir: Path, seed: int, point: str) -> int:
        """Begin uploading; returns the process id."""
        self._tell(f"crash {data_dir} {seed} {point}")
        return int(self._answer())

    def race(self, data_dir: Path, url: str, name: str, count: int) -> None:
        """Let two processes upload the same `count` directions under one name."""
        self._tell(f"race {data_dir} {url} {name} {count}")

    def ended(self) -> list[int]:
        """Wait for the end of the uploading processes; their exit codes."""
        word, *codes = self._answer().split()
        assert word == "dead"
        return [int(code) for code in codes]

    def wait(self, seconds: float) -> None:
        """Let the child work for a while."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def stop(self) -> None:
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
