"""The command `coxctl`: options that every command shares, and what is asked of the server."""

from __future__ import annotations

from importlib.metadata import version as package_version
from typing import Annotated

import typer

from coxswain_client.client import DEFAULT_BASE_URL, Coxswain

from . import analyze, evaluate, jobs, keys, registry
from .chat import chat
from .fit import fit
from .options import AsJson, client_of, group, option
from .output import show, show_table

__all__ = ["app", "main"]

app = group("Talk to a Coxswain server.", context_settings={"auto_envvar_prefix": "COXCTL"})


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"coxctl, version {package_version('coxswain')}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    base_url: Annotated[str, option(help="The server.")] = DEFAULT_BASE_URL,
    api_key: Annotated[
        str | None, option(help="Bearer token; better in the environment as COXCTL_API_KEY.")
    ] = None,
    version: Annotated[
        bool,
        option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Talk to a Coxswain server.

    Every option has an environment variable, such as COXCTL_BASE_URL.
    """
    del version  # its callback printed it
    if ctx.obj is None:
        ctx.obj = ctx.with_resource(Coxswain(base_url, api_key=api_key))


@app.command()
def models(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Every name that a request's model may have."""
    found = client_of(ctx).models().data
    show_table(found, ("id", "parent", "max_model_len"), as_json=as_json)


@app.command()
def capabilities(ctx: typer.Context) -> None:
    """What the server can do with its model."""
    show(client_of(ctx).capabilities())


@app.command()
def ready(ctx: typer.Context) -> None:
    """Whether the server takes requests; the exit status says it too."""
    is_ready = client_of(ctx).is_ready()
    typer.echo("ready" if is_ready else "not ready")
    raise typer.Exit(0 if is_ready else 1)


app.command()(chat)
app.command()(fit)
app.add_typer(registry.directions, name="directions")
app.add_typer(registry.profiles, name="profiles")
app.add_typer(registry.aliases, name="aliases")
app.add_typer(keys.keys, name="keys")
app.add_typer(jobs.jobs, name="jobs")
app.add_typer(analyze.analyze, name="analyze")
app.add_typer(evaluate.evaluate, name="eval")


def main() -> None:
    """Run the command line."""
    app(prog_name="coxctl")
