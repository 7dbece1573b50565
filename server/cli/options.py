"""Shared by the commands: options, the settings, the store, and how commands fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from server.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from server.store import Store

DataDir = Annotated[Path | None, typer.Option(help="Database and artifacts.")]
"""The store's directory, in place of the one the environment names."""


def read_settings(**options: Any) -> Settings:
    """The settings of the environment, and options that are given instead.

    Raises:
        Exit: One is not as it should be; says which.
    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, problem["loc"]))
        raise failure(f"{name} ({ENV_PREFIX}{name.upper()}): {problem['msg']}") from error


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The store of the settings, closed at the end.

    Raises:
        StoreError: It cannot be used.
    """
    from server.resolver.library import load_direction_blob
    from server.store import Store

    store = Store.open(
        settings.data_dir,
        settings.database_url,
        artifacts_url=settings.artifacts_url,
        load=load_direction_blob,
        sweep=False,
    )
    try:
        yield store
    finally:
        store.close()


def failure(message: str, *, status: int = 2) -> typer.Exit:
    """Print a line of why a command fails; raise what is returned."""
    typer.secho(f"coxswain: {' '.join(message.split())}", err=True, fg=typer.colors.RED)
    return typer.Exit(status)
