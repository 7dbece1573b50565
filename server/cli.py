"""The command `coxswain`: serve, bake, manage keys, tend the store, say the version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from .settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from .store import Store

__all__ = ["app", "main"]

app = typer.Typer(
    help="An inference-time steering server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
app.add_typer(_keys_app, name="keys")
_store_app = typer.Typer(help="Check and tidy what is stored.", no_args_is_help=True)
app.add_typer(_store_app, name="store")

_DataDir = Annotated[Path | None, typer.Option(help="Database and artifacts.")]


@app.command()
def serve(
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder.")] = None,
    served_name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0: a free one.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:<i>.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")] = None,
    device_map: Annotated[str | None, typer.Option(help="none, auto, balanced.")] = None,
    data_dir: _DataDir = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; 0: cores.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Prompt plus answer.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    default_profile: Annotated[str | None, typer.Option(help="For requests without.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
) -> None:
    """Serve a model over HTTP. Options win over COXSWAIN_<NAME> in the environment."""
    settings = _settings(
        model=model,
        served_name=served_name,
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        device_map=device_map,
        data_dir=data_dir,
        threads=threads,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        default_profile=default_profile,
        log_format=log_format,
    )
    from .engine.errors import EngineDeadError
    from .store.errors import StoreError  # loads torch: not for --help

    try:
        asyncio.run(_run(settings))
    except EngineDeadError as error:
        raise _failure(str(error), status=1) from error
    except (ValueError, StoreError) as error:
        raise _failure(str(error)) from error


@app.command()
def bake(
    model: Annotated[Path, typer.Option(help="Checkpoint folder; only read.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    profile: Annotated[str | None, typer.Option(help="A stored profile or alias.")] = None,
    direction: Annotated[Path | None, typer.Option(help="A direction's safetensors file.")] = None,
    operation: Annotated[
        str | None,
        typer.Option(help="With it: rank_one, rank_one_calibrated, amplify or ablate."),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Strength.")] = None,
    relative: Annotated[
        float | None, typer.Option(help="Instead: relative change of every weight, like 0.01.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Like 0,3-5. Default: all.")] = None,
    embeddings: Annotated[bool, typer.Option(help="The token embedding too.")] = False,
    untie: Annotated[bool, typer.Option(help="Part it from a tied unembedding.")] = False,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A prompt a line, to measure outputs on.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Report, and write nothing.")] = False,
    force: Annotated[bool, typer.Option(help="Replace a checkpoint at --out.")] = False,
    data_dir: _DataDir = None,
) -> None:
    """Write steering into a copy of a checkpoint's weights, to be loaded without Coxswain."""
    from steering.errors import SteeringError
    from steering.weights import WeightEditError

    from .bake import options as given
    from .bake.run import bake as run
    from .engine.errors import EngineError
    from .store.errors import StoreError

    if (out is None) != dry_run:
        raise _failure("give either --out, or --dry-run for a report alone")
    try:
        options = given.BakeOptions(
            model=model,
            out=out,
            profile=profile,
            direction=direction,
            operation=None if operation is None else given.parse_operation(operation),
            alpha=alpha,
            relative=relative,
            layers=None if layers is None else given.parse_layers(layers),
            embeddings=embeddings,
            untie=untie,
            dtype=dtype,
            prompts=prompts,
            force=force,
        )
        with nullcontext() if profile is None else _open_store(data_dir) as store:
            report = run(options, store)
    except (SteeringError, WeightEditError, EngineError, StoreError, OSError) as error:
        raise _failure(str(error)) from error
    typer.echo(report.table())
    for note in (*report.notes, *(f"warning: {text}" for text in report.warnings)):
        typer.echo(note, err=True)


@app.command()
def version() -> None:
    """Say the version."""
    typer.echo(package_version("coxswain"))


@_keys_app.command("create")
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
    data_dir: _DataDir = None,
) -> None:
    """Make an API key and print it, this once."""
    from .auth import LOCAL_USER, KeyScope
    from .store import SYSTEM, KeySpec

    chosen = set(scope or set(KeyScope) - {KeyScope.RESTRICTED})
    if unknown := chosen - set(KeyScope):
        raise _failure(f"no such scope: {', '.join(sorted(unknown))}; have {', '.join(KeyScope)}")
    with _open_store(data_dir) as store:
        if only_first and store.keys.exist():
            typer.echo("a key exists already", err=True)
            return
        try:
            spec = KeySpec(
                name=name,
                scopes=frozenset(map(KeyScope, chosen)),
                profiles_allow=frozenset(profile) if profile else None,
                default_profile=default_profile,
                requests_per_minute=requests_per_minute,
            )
        except ValueError as error:
            raise _failure(str(error)) from error
        typer.echo(store.keys.create(spec, minter=LOCAL_USER, by=SYSTEM).secret)


@_keys_app.command("list")
def list_keys(data_dir: _DataDir = None) -> None:
    """Print every key, without its secret, as a line of JSON."""
    from .api import records

    with _open_store(data_dir) as store:
        cursor = None
        while True:
            page = store.keys.list(cursor, 200)
            for record in page.items:
                typer.echo(json.dumps(records.key(record)))
            cursor = page.next_cursor
            if cursor is None:
                return


@_keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")],
    data_dir: _DataDir = None,
) -> None:
    """End a key for good, at once."""
    from .store import SYSTEM
    from .store.errors import StoreError

    with _open_store(data_dir) as store:
        try:
            store.keys.revoke(key_id, by=SYSTEM)
        except StoreError as error:
            raise _failure(str(error)) from error


@_store_app.command("check")
def check_store(data_dir: _DataDir = None) -> None:
    """Read every artifact and the audit log again; status 1 if anything is damaged."""
    from . import store_report
    from .store.errors import StoreError

    with _open_store(data_dir) as store:
        try:
            found, fault = store.artifacts.check(), store.audit_fault()
        except StoreError as error:
            raise _failure(str(error)) from error
    for line in store_report.checked(found, fault):
        typer.echo(line)
    if fault is not None or not found.is_sound:
        raise typer.Exit(1)


@_store_app.command("collect")
def collect_store(
    grace_hours: Annotated[
        float, typer.Option(min=0, help="Age below which an orphan may be an upload in progress.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option(help="Say what would be removed.")] = False,
    data_dir: _DataDir = None,
) -> None:
    """Remove artifacts that nothing names, what interrupted uploads left, and old ended jobs."""
    from . import store_report
    from .store.errors import StoreError

    days = _settings().job_retention_days
    with _open_store(data_dir) as store:
        try:
            found = store.artifacts.collect(timedelta(hours=grace_hours), dry_run=dry_run)
            for line in store_report.collected(found, dry_run=dry_run):
                typer.echo(line)
            if days is not None:
                jobs = store.jobs.prune(timedelta(days=days), dry_run=dry_run)
                typer.echo(store_report.pruned(jobs, days, dry_run=dry_run))
        except StoreError as error:
            raise _failure(str(error)) from error


def main() -> None:
    """Run the command line."""
    app(prog_name="coxswain")


async def _run(settings: Settings) -> None:
    """Load the model, open the store and serve until stopped."""
    from .app import check_exposure, serve
    from .engine.async_engine import AsyncEngine
    from .logs import configure_logs
    from .registry.library import load_direction_blob
    from .store import Store

    configure_logs(settings.log_level, settings.log_format)
    store = await asyncio.to_thread(
        Store.open,
        settings.data_dir,
        settings.database_url,
        artifacts_url=settings.artifacts_url,
        load=load_direction_blob,
    )
    try:
        check_exposure(settings, store)  # before minutes of loading
        engine = await asyncio.to_thread(AsyncEngine.start, settings.engine_config())
        try:
            await serve(settings, engine, store)
        finally:
            await asyncio.to_thread(engine.close)
    finally:
        store.close()


def _settings(**options: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, problem["loc"]))
        raise _failure(f"{name} ({ENV_PREFIX}{name.upper()}): {problem['msg']}") from error


@contextmanager
def _open_store(data_dir: Path | None) -> Iterator[Store]:
    """The store of the settings, closed at the end."""
    from .registry.library import load_direction_blob
    from .store import Store
    from .store.errors import StoreError

    settings = _settings(data_dir=data_dir)
    try:
        store = Store.open(
            settings.data_dir,
            settings.database_url,
            artifacts_url=settings.artifacts_url,
            load=load_direction_blob,
            sweep=False,
        )
    except StoreError as error:
        raise _failure(str(error)) from error
    try:
        yield store
    finally:
        store.close()


def _failure(message: str, *, status: int = 2) -> typer.Exit:
    typer.secho(f"coxswain: {message}", err=True, fg=typer.colors.RED)
    return typer.Exit(status)
