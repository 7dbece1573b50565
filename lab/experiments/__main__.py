"""Command line: `python -m lab.experiments [name ...]` measures and writes results and a page."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from server.logs import configure_logs
from server.models import EMBEDDED_MODEL

from . import rosi, styles, transport
from .cliff import experiment as cliff
from .page import page, results
from .subject import Sizes, Subject

EXPERIMENTS: Final[Mapping[str, Callable[[Subject], dict[str, Any]]]] = {
    "rosi": rosi.run,
    "transport": transport.run,
    "cliff": cliff.run,
    "styles": styles.run,
}
"""By name, in the order of the page."""

_DOCS: Final = Path(__file__).parents[2] / "docs"
_log = logging.getLogger("experiments")


def main(arguments: list[str] | None = None, sizes: Sizes | None = None) -> None:
    """Run experiments; the page is made of their results, and of shipped ones for all others."""
    configure_logs("info", "text")
    options = _parser().parse_args(arguments)
    names = options.names or list(EXPERIMENTS)
    for checkpoint in options.checkpoints:
        subject = Subject(checkpoint, sizes or Sizes())
        for name in names:
            _log.info("%s, training seed %d", name, subject.training_seed)
            found = {**EXPERIMENTS[name](subject), "sizes": asdict(subject.sizes)}
            results.write(options.out, name, found)
            _compare(options.out, name, subject.training_seed)
    page.write_page(results.load(_DOCS, options.out), options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.experiments", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        choices=[*EXPERIMENTS, []],
        metavar="name",
        help=f"of {', '.join(EXPERIMENTS)}; all of them without one",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/experiments"),
        help="folder to write to; docs replaces what is shipped",
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        nargs="*",
        default=[EMBEDDED_MODEL],
        help="of `python -m lab.organism train`; the shipped one by default",
    )
    return parser


def _compare(out: Path, name: str, training_seed: int) -> None:
    """Say whether a result is the shipped one, byte for byte."""
    made, shipped = (results.path_of(folder, name, training_seed) for folder in (out, _DOCS))
    if not shipped.exists():
        _log.info("%s: nothing is shipped to compare with", made)
    elif made.read_bytes() == shipped.read_bytes():
        _log.info("%s: the same as shipped", made)
    else:
        _log.info("%s: differs from what is shipped", made)


if __name__ == "__main__":
    main()
