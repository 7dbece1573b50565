"""`coxswain serve`: a model over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import structlog
import typer

from server.settings import Settings

from .options import DataDir, read_settings


def serve(
    model: Annotated[
        str | None,
        typer.Option(help="smollm2, organism, a folder, a .gguf file, or a hub id."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of a LoRA adapter, merged into the model.")
    ] = None,
    served_name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0: a free one.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:<i>.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")] = None,
    device_map: Annotated[str | None, typer.Option(help="none, auto, balanced.")] = None,
    data_dir: DataDir = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; 0: cores.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Prompt plus answer.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    default_profile: Annotated[str | None, typer.Option(help="For requests without.")] = None,
    generation_config: Annotated[str | None, typer.Option(help="model or none.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
) -> None:
    """Serve a model over HTTP. Options win over COXSWAIN_<NAME> in the environment."""
    settings = read_settings(
        model=model,
        adapter=adapter,
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
        generation_config=generation_config,
        log_format=log_format,
    )
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    """Take the port, open the store, find and load the model and serve until stopped.

    In that order: what fails at once is told before minutes of loading.
    """
    from server.app import check_exposure, serve  # loads torch: not for --help
    from server.engine.async_engine import AsyncEngine
    from server.logs import configure_logs
    from server.models import find_model
    from server.resolver.library import load_direction_blob
    from server.serve import bind
    from server.store import Store

    configure_logs(settings.log_level, settings.log_format)
    with ExitStack() as stack:
        sockets = bind(settings.host, settings.port)
        for sock in sockets:
            stack.enter_context(sock)
        store = await asyncio.to_thread(
            Store.open,
            settings.data_dir,
            settings.database_url,
            artifacts_url=settings.artifacts_url,
            load=load_direction_blob,
        )
        stack.callback(store.close)
        check_exposure(settings, store)
        source = await asyncio.to_thread(find_model, settings.model)
        structlog.get_logger(__name__).info(
            "model_found", model=source.served_name, path=str(source.path), reason=source.reason
        )
        folder = await asyncio.to_thread(source.folder, settings.models_dir, settings.dtype)
        config = settings.engine_config(folder, source.served_name)
        engine = await asyncio.to_thread(AsyncEngine.start, config)
        try:
            await serve(settings, engine, store, source=source, sockets=sockets)
        finally:
            await asyncio.to_thread(engine.close)
