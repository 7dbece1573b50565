"""Command line: `python -m lab.smollm2` makes the demo of SmolLM2 again, over HTTP."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from coxswain_client import Coxswain
from server.logs import configure_logs
from server.models import SMOLLM2_DEMO_DIR
from tools.local_server import local_server

from .artifacts import write
from .concepts import CONCEPTS
from .report import write_page
from .search import Unsteered, search
from .trials import Trials

_ROOT: Final = Path(__file__).parents[2]
_TIMEOUT: Final = 1800.0


@contextmanager
def _server(address: str | None) -> Iterator[str]:
    """The address of a server with SmolLM2: the one given, or one of its own."""
    if address is not None:
        yield address
        return
    environment = {"COXSWAIN_MODEL": "smollm2", "COXSWAIN_LOAD_DEMO": "false"}
    with TemporaryDirectory() as folder, local_server(Path(folder), environment) as own:
        yield own


def main(arguments: list[str] | None = None) -> None:
    """Fit, choose and write each style."""
    configure_logs("info", "text")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    names = [concept.name for concept in CONCEPTS]
    parser = argparse.ArgumentParser(prog="python -m lab.smollm2", description=__doc__)
    parser.add_argument("--server", help="address of one that serves smollm2; default: its own")
    parser.add_argument("--style", action="append", choices=names, help="only these")
    parser.add_argument("--out", type=Path, default=SMOLLM2_DEMO_DIR)
    parser.add_argument("--page", type=Path, default=_ROOT / "docs" / "demos.md")
    options = parser.parse_args(arguments)
    with _server(options.server) as address, Coxswain(address, timeout_seconds=_TIMEOUT) as client:
        trials = Trials(client, client.capabilities()["model"]["name"])
        unsteered = Unsteered.ask(trials)
        for concept in CONCEPTS:
            if concept.name in (options.style or names):
                write(client, search(client, trials, concept, unsteered), options.out)
    write_page(options.out, options.page)


if __name__ == "__main__":
    main()
