"""`coxctl keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import AsJson, argument, client_of, group, option, without_blanks
from .output import all_pages, show, show_table

__all__ = ["keys"]

_COLUMNS = ("id", "name", "scopes", "default_profile", "requests_per_minute", "revoked_at")

keys = group("API keys.")


@keys.command()
def create(
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


@keys.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """All keys without their secrets."""
    client = client_of(ctx)
    found = list(all_pages(lambda cursor: client.keys.list(cursor=cursor)))
    show_table(found, _COLUMNS, as_json=as_json)


@keys.command()
def revoke(ctx: typer.Context, key_id: Annotated[str, argument("KEY_ID")]) -> None:
    """End the key KEY_ID for good."""
    show(client_of(ctx).keys.revoke(key_id))
