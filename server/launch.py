"""From settings to a running server."""

from __future__ import annotations

import asyncio

import structlog

from .app import create_app
from .engine.engine import Engine
from .logs import configure_logs
from .registry.demo import import_demo
from .registry.library import load_direction_blob
from .serve import DrainingServer, uvicorn_config
from .settings import DEMO_DIR, Settings
from .store import Store

__all__ = ["run", "serve"]

_log = structlog.get_logger(__name__)


async def run(settings: Settings) -> None:
    """Load the model, open the store and serve until stopped.

    Raises:
        ValueError: The settings do not fit together.
    """
    from .engine.async_engine import AsyncEngine  # loads transformers: not for other engines

    configure_logs(settings.log_level, settings.log_format)
    store = await asyncio.to_thread(
        Store.open, settings.data_dir, settings.database_url, load=load_direction_blob
    )
    try:
        engine = await asyncio.to_thread(AsyncEngine.start, settings.engine_config())
        try:
            await serve(settings, engine, store)
        finally:
            await asyncio.to_thread(engine.close)
    finally:
        store.close()


async def serve(settings: Settings, engine: Engine, store: Store) -> None:
    """Serve an engine until stopped by a signal."""
    await asyncio.to_thread(_check_store, store)
    if settings.load_demo:
        await asyncio.to_thread(import_demo, DEMO_DIR, store, engine.info().spec)
    app = create_app(settings, engine, store)
    services = app.state.services
    if services.keys.is_open:
        _log.warning("no_keys", message="no API key exists: whoever reaches the port may do all")
    server = DrainingServer(uvicorn_config(app, settings), services, settings.drain_timeout_seconds)
    await server.serve()


def _check_store(store: Store) -> None:
    check = store.verify()
    if not check.is_sound:
        _log.error(
            "store_damaged",
            directions=check.directions,
            profiles=check.profiles,
            audit=check.audit_fault,
        )
