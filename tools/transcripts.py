"""Write what the documentation's examples print, from a real server with the embedded model.

python -m tools.transcripts [file ...]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from .examples import documents, examples, rewrite, run
from .local_server import local_server


def main(names: list[str]) -> None:
    """Rewrite the documents named, or all, each against a server of its own, as a reader has."""
    for path in [Path(name).resolve() for name in names] or documents():
        if not examples(path):
            continue
        with (
            TemporaryDirectory() as data,
            TemporaryDirectory() as folder,
            local_server(Path(data)) as address,
        ):
            rewrite(path, partial(run, address=address, folder=Path(folder)))
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
