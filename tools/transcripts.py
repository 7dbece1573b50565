"""Write what the documentation's examples print, from a real server with each page's model.

python -m tools.transcripts [file ...]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from .examples import documents, examples, is_here, model_of, rewrite, run
from .local_server import local_server


def main(names: list[str]) -> None:
    """Rewrite the documents named, or all, each against a server of its own, as a reader has."""
    for path in [Path(name).resolve() for name in names] or documents():
        model = model_of(path)
        if not examples(path):
            continue
        if not is_here(model):
            print(f"{path.name}: left as it is, because {model} is not installed; make model")
            continue
        with (
            TemporaryDirectory() as data,
            TemporaryDirectory() as folder,
            local_server(Path(data), {"COXSWAIN_MODEL": model}) as address,
        ):
            rewrite(path, partial(run, address=address, folder=Path(folder)))
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
