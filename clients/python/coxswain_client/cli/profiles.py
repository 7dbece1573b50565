"""`coxctl profiles` and `coxctl aliases`."""

from __future__ import annotations

import json
from typing import IO, Any

import click

from coxswain_client.client import Coxswain

from .output import show, show_table
from .paging import every

__all__ = ["aliases", "profiles"]

_COLUMNS = ("name", "version", "status", "description")
_ALIAS_COLUMNS = ("alias", "profile")


@click.group()
def profiles() -> None:
    """Profiles: ordered interventions under one name."""


@profiles.command()
@click.argument("file", type=click.File())
@click.option("--publish", is_flag=True, help="Let requests use it at once.")
@click.pass_obj
def create(client: Coxswain, *, file: IO[str], publish: bool) -> None:
    """Save the profile that FILE describes in JSON ("-" reads standard input)."""
    show(client.profiles.create(**_read(file), publish=publish))


@profiles.command()
@click.argument("file", type=click.File())
@click.pass_obj
def validate(client: Coxswain, *, file: IO[str]) -> None:
    """Say what the profile in FILE would do, or everything that is wrong; saves nothing."""
    show(client.profiles.validate(**_read(file)))


@profiles.command()
@click.argument("reference")
@click.pass_obj
def publish(client: Coxswain, *, reference: str) -> None:
    """Let requests use NAME (its newest version) or NAME@VERSION."""
    show(client.profiles.publish(reference))


@profiles.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(client: Coxswain, *, as_json: bool) -> None:
    """The newest version of every profile."""
    found = list(every(lambda cursor: client.profiles.list(cursor=cursor)))
    show_table(found, _COLUMNS, as_json=as_json)


@profiles.command()
@click.argument("reference")
@click.pass_obj
def get(client: Coxswain, *, reference: str) -> None:
    """One profile, as NAME or NAME@VERSION."""
    show(client.profiles.get(reference))


@profiles.command()
@click.argument("reference")
@click.pass_obj
def delete(client: Coxswain, *, reference: str) -> None:
    """Archive NAME or NAME@VERSION."""
    show(client.profiles.delete(reference))


@click.group()
def aliases() -> None:
    """Names that point to profiles and may be moved."""


@aliases.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_aliases(client: Coxswain, *, as_json: bool) -> None:
    """Every alias."""
    found = list(every(lambda cursor: client.aliases.list(cursor=cursor)))
    show_table(found, _ALIAS_COLUMNS, as_json=as_json)


@aliases.command("set")
@click.argument("alias")
@click.argument("profile")
@click.pass_obj
def set_alias(client: Coxswain, *, alias: str, profile: str) -> None:
    """Point ALIAS to PROFILE, as NAME or NAME@VERSION."""
    show(client.aliases.set(alias, profile))


@aliases.command("delete")
@click.argument("alias")
@click.pass_obj
def delete_alias(client: Coxswain, *, alias: str) -> None:
    """Remove ALIAS; its profile stays."""
    client.aliases.delete(alias)


def _read(file: IO[str]) -> dict[str, Any]:
    try:
        document = json.load(file)
    except ValueError as error:
        raise click.ClickException(f"{file.name} is not JSON: {error}") from None
    if not isinstance(document, dict) or not {"name", "interventions"} <= document.keys():
        raise click.ClickException(f"{file.name} is not a profile: needs name and interventions")
    return document
