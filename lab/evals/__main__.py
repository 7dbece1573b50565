"""Run the suites of `lab/evals/` on the embedded model, against a server of their own.

python -m lab.evals [OUT] [option of `coxctl eval run` ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tools.local_server import local_server

from .write_data import FOLDER

_OUT: Final = Path("build") / "evals"
_BIN: Final = Path(sys.executable).parent


def main(arguments: list[str]) -> None:
    """Leave a folder for each suite in OUT, by default `build/evals`; finished cells are kept."""
    is_option = not arguments or arguments[0].startswith("-")
    out, options = (_OUT, arguments) if is_option else (Path(arguments[0]), arguments[1:])
    with TemporaryDirectory() as data, local_server(Path(data)) as address:
        for suite in sorted((FOLDER / "suites").glob("*.yaml")):
            folder = out / suite.stem
            command = ["coxctl", "--base-url", address, "eval", "run", str(suite)]
            _run(*command, "--out", str(folder), "--resume", *options)


def _run(program: str, *arguments: str) -> None:
    subprocess.run([_BIN / program, *arguments], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
