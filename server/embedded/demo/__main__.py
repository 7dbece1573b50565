"""Command line: `python -m server.embedded.demo` makes the demo directions and profiles again."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from .artifacts import write
from .laboratory import Laboratory
from .run import run

__all__ = ["main"]

_FOLDER = Path(__file__).parent
_CHECKPOINT = _FOLDER.parent / "checkpoint"


def main(arguments: list[str] | None = None) -> None:
    """Fit, choose, measure and write."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m server.embedded.demo", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=_CHECKPOINT)
    parser.add_argument("--out", type=Path, default=_FOLDER, help="folder to write to")
    options = parser.parse_args(arguments)
    write(run(Laboratory(options.checkpoint)), options.out)


if __name__ == "__main__":
    main()
