"""The command `coxctl`: what all commands share, the server itself, its keys, and chats."""

from __future__ import annotations

from importlib.metadata import version as package_version
from typing import Annotated, Any

import typer

from coxswain_client.client import DEFAULT_BASE_URL, Coxswain
from coxswain_client.models.generation import ChatMessage

from . import analyze, evaluate, jobs, registry
from .options import AsJson, TemplateKwargs, argument, client_of, group, option, without_blanks
from .output import all_pages, show, show_table

app = group("Talk to a Coxswain server.", context_settings={"auto_envvar_prefix": "COXCTL"})
_KEY_COLUMNS = ("id", "name", "scopes", "default_profile", "requests_per_minute", "revoked_at")

_keys = group("API keys.")


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


@app.command()
def chat(
    ctx: typer.Context,
    text: Annotated[str, argument("TEXT")],
    profile: Annotated[
        str | None,
        option(help="Profile, as NAME or NAME@VERSION; 'none' opts out of a default."),
    ] = None,
    strength: Annotated[float | None, option(help="Factor on the profile's strengths.")] = None,
    system: Annotated[str | None, option(help="System message.")] = None,
    model: Annotated[
        str | None, option(help="Name of the model; by default the one the server has loaded.")
    ] = None,
    max_tokens: Annotated[int | None, option(help="Most tokens of the answer.")] = None,
    temperature: Annotated[float | None, option(help="0 takes the likeliest token.")] = None,
    seed: Annotated[int | None, option(help="Makes the answer reproducible.")] = None,
    chat_template_kwargs: TemplateKwargs = None,
    compare: Annotated[bool, option("--compare", help="Print the unsteered answer first.")] = False,
    as_json: Annotated[bool, option("--json", help="Print the whole answer as JSON.")] = False,
) -> None:
    """Ask TEXT, steered by a profile, and print the answer as it is written.

    What it thinks goes to standard error.
    """
    client = client_of(ctx)
    turns: list[ChatMessage] = [] if system is None else [{"role": "system", "content": system}]
    turns.append({"role": "user", "content": text})
    options: dict[str, Any] = {
        "model": model or client.models().data[0].id,
        "profile": profile,
        "strength": strength,
        **without_blanks(
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            chat_template_kwargs=chat_template_kwargs,
        ),
    }
    if not compare and not as_json:
        _print_stream(client, turns, options)
        return
    answer = client.chat(turns, steering={"compare": True} if compare else None, **options)
    if as_json:
        show(answer)
        return
    typer.echo(f"unsteered: {answer.baseline_text}\nsteered:   {answer.text}")


def _print_stream(client: Coxswain, turns: list[ChatMessage], options: dict[str, Any]) -> None:
    with client.stream_chat(turns, **options) as chunks:
        for chunk in chunks:
            typer.secho(chunk.thought, nl=False, err=True, dim=True)
            typer.echo(chunk.text, nl=False)
    typer.echo()


@_keys.command("create")
def create_key(
    ctx: typer.Context,
    name: Annotated[str, argument("NAME")],
    scopes: Annotated[list[str], option("--scope", help="Repeatable.")],
    profiles: Annotated[
        list[str] | None, option("--profile", help="Only these; repeatable.")
    ] = None,
    default_profile: Annotated[
        str | None, option(help="Used by requests that choose none.")
    ] = None,
    requests_per_minute: Annotated[int | None, option(help="Its limit.")] = None,
    expires_at: Annotated[str | None, option(help="Such as 2030-01-01T00:00:00Z.")] = None,
) -> None:
    """Make a key called NAME and print it with its secret, which is shown this once."""
    limits = without_blanks(
        profiles_allow=profiles,
        default_profile=default_profile,
        requests_per_minute=requests_per_minute,
        expires_at=expires_at,
    )
    show(client_of(ctx).keys.create(name, scopes, **limits))


@_keys.command("list")
def list_keys(ctx: typer.Context, as_json: AsJson = False) -> None:
    """All keys without their secrets."""
    client = client_of(ctx)
    found = list(all_pages(lambda cursor: client.keys.list(cursor=cursor)))
    show_table(found, _KEY_COLUMNS, as_json=as_json)


@_keys.command()
def revoke(ctx: typer.Context, key_id: Annotated[str, argument("KEY_ID")]) -> None:
    """End the key KEY_ID for good."""
    show(client_of(ctx).keys.revoke(key_id))


app.command()(jobs.fit)
app.add_typer(registry.directions, name="directions")
app.add_typer(registry.profiles, name="profiles")
app.add_typer(registry.aliases, name="aliases")
app.add_typer(_keys, name="keys")
app.add_typer(jobs.jobs, name="jobs")
app.add_typer(analyze.analyze, name="analyze")
app.add_typer(evaluate.evaluate, name="eval")


def main() -> None:
    """Run the command line."""
    app(prog_name="coxctl")
