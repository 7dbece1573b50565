"""The command `coxswain`, and how its commands end where something known goes wrong."""

from __future__ import annotations

import traceback
from importlib.metadata import version as package_version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import keys, store
from .bake import bake
from .models import models
from .options import failure
from .serve import serve


class ReportingGroup(TyperGroup):
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
    # Loads torch, which `--help` must not.
    from server.engine.errors import EngineDeadError
    from server.serve import StartError
    from steering.errors import CoxswainError

    if isinstance(error, EngineDeadError):
        return 1
    return 2 if isinstance(error, CoxswainError | StartError | OSError) else None


app = typer.Typer(
    cls=ReportingGroup,
    help="An inference-time steering server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show where in the code an error arose.")] = False,
) -> None:
    """An inference-time steering server."""
    del debug  # `ReportingGroup` reads it


@app.command()
def version() -> None:
    """Say the version."""
    typer.echo(package_version("coxswain"))


for _command in (serve, models, bake):
    app.command()(_command)
app.add_typer(keys.app, name="keys")
app.add_typer(store.app, name="store")


def main() -> None:
    """Run the command line."""
    app(prog_name="coxswain")
