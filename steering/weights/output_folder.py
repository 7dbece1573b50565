"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputExistsError


def check_output(target: Path, source: Path, *, replace: bool) -> None:
    """Refuse a target that may not be written.

    Raises:
        OutputExistsError: It exists and may not be replaced, or is or holds the source.
    """
    inside = target.resolve()
    if source.resolve().is_relative_to(inside) or inside.is_relative_to(source.resolve()):
        raise OutputExistsError(
            f"out is {str(target)!r}, which is, holds or lies in the model's own folder; choose "
            "another place",
            param="out",
        )
    if os.path.lexists(target) and not replace:
        raise OutputExistsError(
            f"out is {str(target)!r}, which exists; choose another place, or --force to replace it",
            param="out",
        )
    if os.path.lexists(target) and not (target / "config.json").is_file():
        raise OutputExistsError(
            f"out is {str(target)!r}, which is no checkpoint; --force replaces checkpoints only",
            param="out",
        )


@contextmanager
def output_folder(target: Path, source: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder beside `target` that takes its name when the block ends well.

    When it does not, for whatever reason, the folder is removed and `target` is as it was. Only a
    killed process leaves one behind, hidden, under the name of the target and `.partial`.

    Raises:
        OutputExistsError: See `check_output`; the target is checked before and after.
    """
    check_output(target, source, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-", suffix=".partial")
    scratch = Path(made)
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        check_output(target, source, replace=replace)
        if os.path.lexists(target):
            target.rename(scratch / "old")
        fresh.rename(target)
    except BaseException:
        if (scratch / "old").exists() and not target.exists():
            (scratch / "old").rename(target)
        raise
    finally:
        shutil.rmtree(scratch)
