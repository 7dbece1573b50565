"""Command line: `python -m lab.demo` makes the demo directions and profiles again."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.logs import configure_logs
from server.models import DEMO_DIR, EMBEDDED_MODEL

from .artifacts import write
from .laboratory import Laboratory
from .run import run


def main(arguments: list[str] | None = None) -> None:
    """Fit, choose, measure and write."""
    configure_logs("info", "text")
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED_MODEL)
    parser.add_argument("--out", type=Path, default=DEMO_DIR, help="folder to write to")
    options = parser.parse_args(arguments)
    write(run(Laboratory(options.checkpoint)), options.out)


if __name__ == "__main__":
    main()
