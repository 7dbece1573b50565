"""Whether the server takes requests, and how it stops."""

from __future__ import annotations

from server.engine.engine import Engine

__all__ = ["Lifecycle"]


class Lifecycle:
    """From serving to draining; there is no way back.

    Args:
        engine: Told to drain.
        step_timeout_seconds: So long without progress, in a step or between steps, means that the
            process hangs. A step may take longer: each layer, and less, is progress.
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
