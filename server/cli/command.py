"""The command `coxswain` and its commands."""

from __future__ import annotations

from importlib.metadata import version as package_version
from typing import Annotated

import typer

from . import keys, store
from .bake import bake
from .border import Border
from .serve import serve

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Border,
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
    del debug  # the border reads it


@app.command()
def version() -> None:
    """Say the version."""
    typer.echo(package_version("coxswain"))


for _command in (serve, bake):
    app.command()(_command)
app.add_typer(keys.app, name="keys")
app.add_typer(store.app, name="store")


def main() -> None:
    """Run the command line."""
    app(prog_name="coxswain")
