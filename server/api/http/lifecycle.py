"""Whether the server takes requests, asked of its engine and its store, and how it stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from server.engine.engine import Engine
from server.pools import Pool
from server.store import Store
from server.store.errors import StoreError, StoreReplacedError

_FRESH_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


class Lifecycle:
    """Whether the engine serves, and whether the server drains; it never stops draining.

    Args:
        engine: Says when it last made progress.
        step_timeout_seconds: So long without progress, in a step or between steps, means that the
            process hangs. A step may take longer: each layer of it is progress.
    """

    def __init__(self, engine: Engine, *, step_timeout_seconds: float) -> None:
        self._engine = engine
        self._step_timeout = step_timeout_seconds
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether new requests are refused."""
        return self._is_draining

    def why_not_live(self) -> str | None:
        """What is wrong, or None: a heartbeat of layers and steps, not of the process."""
        stats = self._engine.stats()
        if stats.seconds_since_progress > self._step_timeout:  # first: it is not healthy either
            return "the engine has made no progress in time"
        return None if stats.is_healthy else "the engine has stopped"

    def why_not_ready(self) -> str | None:
        """Why requests should go elsewhere, or None."""
        if self._is_draining:
            return "shutting down"
        return self.why_not_live()

    def begin_drain(self) -> None:
        """Refuse new requests from now on."""
        self._is_draining = True


class StoreHealth:
    """Asks the store at most once a second, and waits no longer for it. On the event loop only.

    Args:
        store: Is asked.
        pool: A thread of its own, so that a question is not behind others.
        patience: Seconds a caller waits for an answer.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        *,
        patience: float = _PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._pool = pool
        self._patience = patience
        self._clock = clock
        self._asked_at = 0.0
        self._asking: asyncio.Task[str | None] | None = None
        self._reason: str | None = None

    async def why_not_ready(self) -> str | None:
        """What is wrong with the store, or None; names neither hosts nor files."""
        now = self._clock()
        asking = self._asking
        if asking is None or (asking.done() and now - self._asked_at >= _FRESH_SECONDS):
            self._asked_at = now
            asking = self._asking = asyncio.create_task(self._ask())
        left = self._asked_at + self._patience - now
        await asyncio.wait({asking}, timeout=max(left, 0.0))
        reason = asking.result() if asking.done() else "the store does not answer"
        if reason != self._reason:
            self._reason = reason
            _log.warning("store_ready" if reason is None else "store_not_ready", reason=reason)
        return reason

    async def _ask(self) -> str | None:
        try:
            await self._pool.run(self._store.audit.last_change)
        except StoreError as error:
            if self._reason is None:
                _log.exception("store_failed")
            is_ours = isinstance(error, StoreReplacedError)
            return str(error) if is_ours else "the store cannot be used; the server's log says why"
        return None
