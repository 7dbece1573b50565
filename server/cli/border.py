"""The border around every command: a fault that is known is told in a line."""

from __future__ import annotations

import traceback
from typing import Any

from typer.core import TyperGroup

from .options import failure

__all__ = ["Border"]


class Border(TyperGroup):
    """Commands whose known faults become one line on stderr and an exit status.

    2 where what was given cannot be used (settings, checkpoint, store, steering), 1 where the
    engine stopped while it served. `--debug` prints where it arose before. A fault of our own
    keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:  # typer has a click of its own
        """Run the command.

        Raises:
            Exit: It failed for a known reason.
        """
        try:
            return super().invoke(ctx)
        except Exception as error:
            status = _status(error)
            if status is None:
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            raise failure(str(error), status=status) from error


def _status(error: Exception) -> int | None:
    # loads torch: not for --help
    from server.engine.errors import EngineDeadError
    from server.serve import StartError
    from steering.errors import CoxswainError

    if isinstance(error, EngineDeadError):
        return 1
    return 2 if isinstance(error, CoxswainError | StartError | OSError) else None
