"""Write what the documentation's examples print, from a real server with the embedded model.

python -m tools.transcripts [file ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from .examples import documents, rewrite, run
from .local_server import local_server

__all__ = ["main"]


def main(names: list[str]) -> None:
    """Rewrite the documents named, or all; each has a fresh server of its own."""
    for path in [Path(name).resolve() for name in names] or documents():
        with TemporaryDirectory() as data, local_server(Path(data)) as address:
            folder = Path(data) / "examples"
            folder.mkdir()
            rewrite(path, lambda example, at=address, where=folder: run(example, at, where))  # type: ignore[misc]
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
