"""`coxctl directions`, `coxctl profiles` and `coxctl aliases`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import AsJson, argument, client_of, failure, group, option, out_file, without_blanks
from .output import all_pages, show, show_table

_DIRECTION_COLUMNS = ("name", "version", "kind", "site", "layers", "width", "sha256")
_PROFILE_COLUMNS = ("name", "version", "status", "description")
_ALIAS_COLUMNS = ("alias", "profile")

directions = group("Stored directions.")
profiles = group("Profiles: ordered interventions under one name.")
aliases = group("Names that point to profiles and may be moved.")

_Reference = Annotated[str, argument("REFERENCE")]
_ProfileFile = Annotated[typer.FileText, argument("FILE")]


@directions.command()
def upload(
    ctx: typer.Context,
    file: Annotated[Path, argument("FILE", exists=True, dir_okay=False)],
    name: Annotated[str, option(help="Name in the registry.")],
    kind: Annotated[
        str | None, option(help="vector, basis, transport, diagonal, plane, heads or probe.")
    ] = None,
    site: Annotated[str | None, option(help="Where it belongs, such as resid_post.")] = None,
    layers: Annotated[
        list[int] | None, option("--layer", help="Layer it belongs to; repeatable.")
    ] = None,
    tags: Annotated[list[str] | None, option("--tag", help="Free label; repeatable.")] = None,
) -> None:
    """Store FILE, a safetensors file or a GGUF control vector."""
    metadata = without_blanks(name=name, kind=kind, site=site, layers=layers, tags=tags)
    stored = client_of(ctx).directions.upload(file.read_bytes(), filename=file.name, **metadata)
    show(stored)


@directions.command("list")
def list_directions(ctx: typer.Context, as_json: AsJson = False) -> None:
    """The newest version of every direction."""
    client = client_of(ctx)
    found = list(all_pages(lambda cursor: client.directions.list(cursor=cursor)))
    show_table(found, _DIRECTION_COLUMNS, as_json=as_json)


@directions.command("get")
def get_direction(ctx: typer.Context, reference: _Reference) -> None:
    """One direction, as NAME or NAME@VERSION."""
    show(client_of(ctx).directions.get(reference))


@directions.command()
def download(
    ctx: typer.Context,
    reference: _Reference,
    file: Annotated[Path, argument("FILE", **out_file())],
) -> None:
    """Write the stored tensors of NAME or NAME@VERSION to FILE."""
    file.write_bytes(client_of(ctx).directions.tensors(reference))


@directions.command("delete")
def delete_direction(ctx: typer.Context, reference: _Reference) -> None:
    """Archive NAME or NAME@VERSION; refused while a profile uses it."""
    show(client_of(ctx).directions.delete(reference))


@profiles.command()
def create(
    ctx: typer.Context,
    file: _ProfileFile,
    publish: Annotated[bool, option("--publish", help="Let requests use it at once.")] = False,
) -> None:
    """Save the profile that FILE describes in JSON ("-" reads standard input)."""
    show(client_of(ctx).profiles.create(**_read(file), publish=publish))


@profiles.command()
def validate(ctx: typer.Context, file: _ProfileFile) -> None:
    """Say what the profile in FILE would do, or everything that is wrong; saves nothing."""
    show(client_of(ctx).profiles.validate(**_read(file)))


@profiles.command()
def publish(ctx: typer.Context, reference: _Reference) -> None:
    """Let requests use NAME (its newest version) or NAME@VERSION."""
    show(client_of(ctx).profiles.publish(reference))


@profiles.command("list")
def list_profiles(ctx: typer.Context, as_json: AsJson = False) -> None:
    """The newest version of every profile."""
    client = client_of(ctx)
    found = list(all_pages(lambda cursor: client.profiles.list(cursor=cursor)))
    show_table(found, _PROFILE_COLUMNS, as_json=as_json)


@profiles.command("get")
def get_profile(ctx: typer.Context, reference: _Reference) -> None:
    """One profile, as NAME or NAME@VERSION."""
    show(client_of(ctx).profiles.get(reference))


@profiles.command("delete")
def delete_profile(ctx: typer.Context, reference: _Reference) -> None:
    """Archive NAME or NAME@VERSION."""
    show(client_of(ctx).profiles.delete(reference))


@aliases.command("list")
def list_aliases(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Every alias."""
    client = client_of(ctx)
    found = list(all_pages(lambda cursor: client.aliases.list(cursor=cursor)))
    show_table(found, _ALIAS_COLUMNS, as_json=as_json)


@aliases.command("set")
def set_alias(
    ctx: typer.Context,
    alias: Annotated[str, argument("ALIAS")],
    profile: Annotated[str, argument("PROFILE")],
) -> None:
    """Point ALIAS to PROFILE, as NAME or NAME@VERSION."""
    show(client_of(ctx).aliases.set(alias, profile))


@aliases.command("delete")
def delete_alias(ctx: typer.Context, alias: Annotated[str, argument("ALIAS")]) -> None:
    """Remove ALIAS; its profile stays."""
    client_of(ctx).aliases.delete(alias)


def _read(file: typer.FileText) -> dict[str, Any]:
    """The profile in a file.

    Raises:
        Exit: The file is not JSON, or no profile.
    """
    try:
        document = json.load(file)
    except ValueError as error:
        raise failure(f"{file.name} is not JSON: {error}") from None
    if not isinstance(document, dict) or not {"name", "interventions"} <= document.keys():
        raise failure(f"{file.name} is not a profile: needs name and interventions")
    return document
