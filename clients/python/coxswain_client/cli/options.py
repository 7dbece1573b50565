"""How commands declare their arguments and options, and how they get at the client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coxswain_client.client import Coxswain
from coxswain_client.errors import SteeringClientError

_READABLE: dict[str, Any] = {"exists": True, "dir_okay": False}


class _Commands(TyperGroup):
    """Commands that print the errors of the client as one line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:  # typer has a click of its own
        """Run the command.

        Raises:
            Exit: The server did not answer, or answered with an error; status 1.
        """
        try:
            return super().invoke(ctx)
        except SteeringClientError as error:
            raise failure(str(error)) from None


def group(summary: str, **settings: Any) -> typer.Typer:
    """Commands that belong together.

    Args:
        summary: What its help begins with.
        settings: Further arguments of `typer.Typer`.
    """
    return typer.Typer(
        cls=_Commands,
        help=summary,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        **settings,
    )


def option(*names: str, **settings: Any) -> Any:
    """An option, as `typer.Option` declares it.

    Every option has an environment variable by its name, so none of them tells its own.
    """
    return typer.Option(*names, show_envvar=False, **settings)


def argument(metavar: str, **settings: Any) -> Any:
    """An argument, as `typer.Argument` declares it; the help of its command says what it is."""
    return typer.Argument(metavar=metavar, hidden=True, **settings)


def in_file(*names: str, **settings: Any) -> Any:
    """An option that names a file, which must exist."""
    return option(*names, **_READABLE, **settings)


def out_file(*endings: str) -> dict[str, Any]:
    """Settings of an option or argument that names a file to be written.

    It is checked before the server is asked: its folder must exist, and it must have one of
    `endings`, if any are given.
    """

    def check(path: Path | None) -> Path | None:
        if path is None:
            return None
        if endings and path.suffix.lower() not in endings:
            expected = " or ".join(", ".join(endings).rsplit(", ", 1))
            raise typer.BadParameter(f"{path} ends with {path.suffix!r}; expected {expected}")
        if not path.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {path.parent}; make it first")
        return path

    return {"dir_okay": False, "writable": True, "callback": check}


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(
            f'{text!r}; expected an object such as {{"enable_thinking": true}}'
        )
    return value


TemplateKwargs = Annotated[
    Any,
    option(
        "--chat-template-kwargs",
        metavar="JSON",
        parser=_json_object,
        help='Variables of the chat template: {"enable_thinking": true}.',
    ),
]
AsJson = Annotated[bool, option("--json", help="Print JSON.")]


def client_of(ctx: typer.Context) -> Coxswain:
    """The client of the server that `coxctl` was told of."""
    client: Coxswain = ctx.obj
    return client


def without_blanks(**fields: Any) -> dict[str, Any]:
    """The fields that were given: neither None nor empty."""
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def failure(message: str) -> typer.Exit:
    """What to raise after a failure, which is printed on standard error; the status is 1."""
    typer.echo(f"Error: {message}", err=True)
    return typer.Exit(1)
