"""`coxctl keys`."""

from __future__ import annotations

from typing import Any

import click

from coxswain_client.client import Coxswain

from .output import show, show_table
from .paging import every

__all__ = ["keys"]

_COLUMNS = ("id", "name", "scopes", "default_profile", "requests_per_minute", "revoked_at")


@click.group()
def keys() -> None:
    """API keys."""


@keys.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="Repeatable.")
@click.option("--profile", "profiles_allow", multiple=True, help="Only these; repeatable.")
@click.option("--default-profile", help="Used by requests that choose none.")
@click.option("--requests-per-minute", type=int, help="Its limit.")
@click.option("--expires-at", help="Such as 2030-01-01T00:00:00Z.")
@click.pass_obj
def create(client: Coxswain, /, *, name: str, scopes: tuple[str, ...], **limits: Any) -> None:
    """Make a key called NAME and print it with its secret, which is shown this once."""
    given = {
        limit: list(value) if isinstance(value, tuple) else value
        for limit, value in limits.items()
        if value not in (None, ())
    }
    show(client.keys.create(name, scopes, **given))


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(client: Coxswain, *, as_json: bool) -> None:
    """All keys without their secrets."""
    found = list(every(lambda cursor: client.keys.list(cursor=cursor)))
    show_table(found, _COLUMNS, as_json=as_json)


@keys.command()
@click.argument("key_id")
@click.pass_obj
def revoke(client: Coxswain, *, key_id: str) -> None:
    """End the key KEY_ID for good."""
    show(client.keys.revoke(key_id))
