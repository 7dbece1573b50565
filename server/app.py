"""The application: routes, middleware and error handling around one engine and one store."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import structlog
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from .api import openapi
from .api.deps import Services
from .api.http.body import Offload
from .api.http.error_table import reply_to
from .api.http.errors import (
    InvalidParameterError,
    RequestError,
    RouteNotFoundError,
    WrongMethodError,
)
from .api.http.lifecycle import Lifecycle, StoreHealth
from .api.http.limits import Limits, Room
from .api.http.middleware import AllowanceHeaders, ErrorBoundary, Gate, is_request_id
from .api.key_gate import KeyGate
from .api.route_list import list_routes, methods_of
from .api.routes import jobs
from .engine.engine import Engine
from .engine.errors import EngineDeadError
from .engine.loading.generation_config import read_sampling_defaults
from .engine.sampling import SamplingDefaults
from .jobs.kind import JobKind
from .jobs.kinds import KINDS
from .jobs.manager import JobLimits, JobManager
from .metrics import Metrics
from .models import DEMO_DIRS, ModelSource
from .pools import Pools
from .registry.demo import find_demo, import_demo
from .registry.drafting import Drafting
from .registry.upload import Uploader
from .resolver.resolver import Resolver
from .serve import Binding, DrainingServer, StartError, bind
from .settings import Settings
from .store import Store
from .store.errors import InsufficientStorageError

_MAX_LOGGED_CHARS: Final = 256
_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
_log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    engine: Engine,
    store: Store,
    *,
    source: ModelSource | None = None,
    kinds: Sequence[JobKind[Any]] = KINDS,
) -> FastAPI:
    """An application that serves `engine`, with what `store` keeps, and runs jobs of `kinds`.

    Jobs run only once `app.state.services.jobs` is started, as `serve` does.
    Without any key in the store requests need none; `settings` must then bind to loopback. `source`
    is where the engine's model comes from, if that is known.

    Raises:
        StartError: No key, and an address that others can reach.
    """
    is_open = check_exposure(settings, store)
    sampling = _sampling_defaults(settings, engine, source)
    services = _services(settings, engine, store, kinds, sampling, is_open=is_open)
    app = openapi.new_app()
    app.state.services = services
    answer = _answer(app, services)
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _reraise)
    # Added last is outermost: ids around all, then allowances, errors and the gate.
    trusted = frozenset(host.lower() for host in settings.trusted_hosts)
    hosts = _hosts(settings, trusted)
    app.add_middleware(
        Gate,
        lifecycle=services.lifecycle,
        hosts=hosts,
        trusted=trusted,
        room=services.room,
        queued=frozenset(route.path for route in list_routes(app) if route.is_queued),
    )
    app.add_middleware(ErrorBoundary, answer=answer)
    app.add_middleware(AllowanceHeaders)
    app.add_middleware(CorrelationIdMiddleware, validator=is_request_id)
    return app


def check_exposure(settings: Settings, store: Store) -> bool:
    """Whether requests need no key.

    Raises:
        StartError: They would not, at an address that others can reach.
    """
    is_open = not store.keys.exist()
    if is_open and not settings.is_loopback:
        raise StartError(
            f"host is {settings.host!r}, which others can reach, and there is no API key; make one "
            "with 'coxswain keys create', or bind to 127.0.0.1"
        )
    return is_open


async def serve(
    settings: Settings,
    engine: Engine,
    store: Store,
    *,
    source: ModelSource | None = None,
    kinds: Sequence[JobKind[Any]] = KINDS,
    sockets: list[socket.socket] | None = None,
) -> None:
    """Check the store, create the demo profiles, and serve until stopped by a signal.

    Args:
        settings: The settings of the process.
        engine: Generates.
        store: Keeps.
        source: Where the engine's model comes from, if that is known.
        kinds: The kinds of jobs.
        sockets: Bound already, by `bind`, to be closed by the caller; None binds here.

    Raises:
        StartError: As `create_app` and `bind`.
        EngineDeadError: The engine stopped or hung.
    """
    app = create_app(settings, engine, store, source=source, kinds=kinds)
    services: Services = app.state.services
    await services.pools.bulk.run(_verify, store)
    demo, is_same = _demo_folder(settings, engine, source)
    if settings.load_demo and demo is not None:
        spec = engine.info().spec
        await services.pools.bulk.run(import_demo, demo, store, spec, is_same_model=is_same)
    if services.keys.is_open:
        _log.warning("no_keys", message="no API key exists: whoever reaches the port may do all")
    binding = Binding(
        max_connections=settings.max_connections,
        drain_timeout_seconds=settings.drain_timeout_seconds,
    )
    server = DrainingServer(app, services, binding)
    try:
        await server.serve(sockets or bind(settings.host, settings.port))
    finally:
        services.pools.close()  # what is being written is, before the store goes
    if server.failure is not None:
        raise EngineDeadError(server.failure)


def _demo_folder(
    settings: Settings, engine: Engine, source: ModelSource | None
) -> tuple[Path | None, bool]:
    """The demo of the served model, and whether that is known by its name.

    Of a folder that is served without a name, or with an adapter, it is known by the fingerprint.
    """
    if source is not None and source.name in DEMO_DIRS and settings.adapter is None:
        return DEMO_DIRS[source.name], True
    return find_demo(DEMO_DIRS.values(), engine.info().spec), False


def _sampling_defaults(
    settings: Settings, engine: Engine, source: ModelSource | None
) -> SamplingDefaults:
    """What the model's own files recommend, and what its demo does where they are silent."""
    own = engine.info().sampling
    demo, _ = _demo_folder(settings, engine, source)
    if demo is None or settings.generation_config == "none":
        return own
    return own.over(read_sampling_defaults(demo))


def _verify(store: Store) -> None:
    """Say what is damaged; a disk too full to mark it must not keep the server from starting."""
    try:
        check = store.verify()
    except InsufficientStorageError as error:
        _log.error("store_not_verified", reason=str(error))
        return
    if not check.is_sound:
        _log.error("store_damaged", **asdict(check))


def _services(
    settings: Settings,
    engine: Engine,
    store: Store,
    kinds: Sequence[JobKind[Any]],
    sampling: SamplingDefaults,
    *,
    is_open: bool,
) -> Services:
    spec = engine.info().spec
    pools = Pools.open()
    resolver = Resolver(store, spec, pools, settings.default_profile)
    uploader = Uploader(store, spec)
    metrics = Metrics(engine.stats, is_auth_disabled=is_open)
    return Services(
        engine=engine,
        store=store,
        resolver=resolver,
        uploader=uploader,
        drafting=Drafting(store, resolver.library, spec),
        jobs=_jobs(settings, engine, resolver, uploader, metrics, kinds, pools),
        pools=pools,
        metrics=metrics,
        lifecycle=Lifecycle(engine, step_timeout_seconds=settings.step_timeout_seconds),
        store_health=StoreHealth(store, pools.health),
        keys=KeyGate(store.keys, pools, is_open=is_open),
        offload=Offload(pools.bodies),
        room=Room(engine, settings.max_queued_requests),
        limits=Limits(
            max_model_len=engine.info().max_model_len,
            max_body_bytes=settings.max_body_bytes,
            max_upload_bytes=settings.max_upload_bytes,
            max_choices=settings.max_choices,
            body_timeout_seconds=settings.body_timeout_seconds,
            send_timeout_seconds=settings.send_timeout_seconds,
            keep_alive_seconds=settings.keep_alive_seconds,
            reasoning_format=settings.reasoning_format,
        ),
        sampling=sampling,
        started_at=int(time.time()),
    )


def _jobs(
    settings: Settings,
    engine: Engine,
    resolver: Resolver,
    uploader: Uploader,
    metrics: Metrics,
    kinds: Sequence[JobKind[Any]],
    pools: Pools,
) -> JobManager:
    return JobManager(
        kinds,
        engine,
        uploader.store,
        uploader=uploader,
        library=resolver.library,
        pools=pools,
        limits=JobLimits(
            max_running=settings.max_running_jobs,
            max_queued=settings.max_queued_jobs,
            num_threads=settings.job_threads,
        ),
        describe=lambda error: reply_to(error, jobs.router.prefix).body(),
        observer=metrics,
    )


def _hosts(settings: Settings, trusted: frozenset[str]) -> frozenset[str]:
    """Host names answered to; empty means any, where the address is open to others anyway."""
    return trusted.union(_LOOPBACK_NAMES) if settings.is_loopback or trusted else trusted


def _answer(app: FastAPI, services: Services) -> Callable[[Exception, Scope], Response]:
    """How an error of a request is answered, counted and logged."""

    def answer(error: Exception, scope: Scope) -> Response:
        reply = reply_to(_known(error, app, scope), scope["path"])
        path = scope["path"][:_MAX_LOGGED_CHARS]
        services.metrics.rejected.labels(reply.code).inc()
        if reply.code == "insufficient_storage":
            services.metrics.store_writable.set(0)
        if reply.status >= 500:
            _log.error("request_failed", path=path, code=reply.code, exc_info=error)
        else:
            _log.info("request_refused", path=path, code=reply.code, status=reply.status)
        return JSONResponse(reply.body(), status_code=reply.status, headers=dict(reply.headers))

    return answer


def _known(error: Exception, app: FastAPI, scope: Scope) -> Exception:
    """The framework's own errors as ours."""
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return RouteNotFoundError("there is no such path; see /docs or the documentation")
        if error.status_code == 405:
            allow = ", ".join(methods_of(app, scope))
            return WrongMethodError(f"this path has only {allow}", allow=allow)
        return RequestError("the request cannot be read")
    if isinstance(error, RequestValidationError):
        return InvalidParameterError("a parameter of the path or query has the wrong form")
    return error


async def _reraise(request: Request, error: Exception) -> Response:
    """Leave the framework's errors to the one boundary that answers all."""
    del request
    raise error
