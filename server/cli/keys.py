"""`coxswain keys`: who may ask."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import DataDir, failure, open_store, read_settings

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="For people.")] = "admin",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeat: chat, inline, read, admin, restricted. Default: all but the last."
        ),
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="Repeat: profiles it may name. Default: any.")
    ] = None,
    default_profile: Annotated[str | None, typer.Option(help="For requests without.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Default: no limit.")] = None,
    only_first: Annotated[bool, typer.Option(help="Do nothing if any key exists.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Make an API key and print it, this once."""
    from server.auth.permissions import LOCAL_USER, Permission
    from server.store import SYSTEM, KeySpec

    chosen = set(scope or set(Permission) - {Permission.RESTRICTED})
    if unknown := chosen - set(Permission):
        raise failure(f"no such scope: {', '.join(sorted(unknown))}; have {', '.join(Permission)}")
    with open_store(read_settings(data_dir=data_dir)) as store:
        if only_first and store.keys.exist():
            typer.echo("a key exists already", err=True)
            return
        try:
            spec = KeySpec(
                name=name,
                permissions=frozenset(map(Permission, chosen)),
                profiles_allow=frozenset(profile) if profile else None,
                default_profile=default_profile,
                requests_per_minute=requests_per_minute,
            )
        except ValueError as error:
            raise failure(str(error)) from error
        typer.echo(store.keys.create(spec, minter=LOCAL_USER, by=SYSTEM).secret)


@app.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """Print every key, without its secret, as a line of JSON."""
    from server.api.schemas.keys import Key

    with open_store(read_settings(data_dir=data_dir)) as store:
        cursor = None
        while True:
            page = store.keys.list(cursor, 200)
            for record in page.items:
                typer.echo(json.dumps(Key.of_record(record).model_dump(mode="json")))
            cursor = page.next_cursor
            if cursor is None:
                return


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """End a key for good, at once."""
    from server.auth.permissions import LOCAL_USER
    from server.store import SYSTEM

    with open_store(read_settings(data_dir=data_dir)) as store:
        store.keys.revoke(key_id, revoker=LOCAL_USER, by=SYSTEM)
