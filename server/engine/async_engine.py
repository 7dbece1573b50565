"""The engine behind an event loop: one thread steps, and coroutines wait for its outputs."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import torch

from .assembly import assemble
from .engine import gather_or_cancel
from .errors import EngineDeadError, EngineDrainingError, EngineError, SlowClientError
from .loading import load
from .outputs import CaptureResult, EngineInfo, EngineStats, RequestOutput, ScoreResult
from .reading import capture_requests, capture_result, score_requests, score_result
from .request import CaptureRequest, GenerationRequest, ScoreRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from steering.sites import SitePoint

    from .core import EngineCore
    from .engine import EngineConfig
    from .text import Tokenizer

_log = structlog.get_logger(__name__)

_DRAIN_POLL_SECONDS: Final = 0.02
_CLOSE_POLL_SECONDS: Final = 0.5
_STOPPED: Final = "the engine has stopped; restart the server"

_StreamItem = RequestOutput | EngineError


class AsyncEngine:
    """Implements `Engine` on an `EngineCore` that runs in a thread of its own.

    Coroutines of any loop may use it. Commands reach the thread through a queue between steps, so
    that an abort takes effect within one step.
    """

    def __init__(
        self, core: EngineCore, tokenizer: Tokenizer, info: EngineInfo, config: EngineConfig
    ) -> None:
        """Start the thread over a core nobody else uses."""
        self._core = core
        self._tokenizer = tokenizer
        self._info = info
        self._config = config
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._outbox: list[tuple[OutputStream, _StreamItem]] = []
        self._num_submitted = 0  # under `_wake`
        self._num_added = 0  # by the engine's thread alone
        self._is_draining = False
        self._is_stopping = False
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="coxswain-engine", daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, config: EngineConfig) -> AsyncEngine:
        """Load the model and start serving it; takes seconds to minutes.

        Raises:
            SteeringError: The architecture cannot be mapped, or the map fails its self-check.
            EngineError: The configuration cannot be met.
        """
        loaded = load(config)
        return cls(assemble(loaded), loaded.tokenizer, loaded.info, loaded.config)

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        return self._tokenizer

    async def generate(self, request: GenerationRequest) -> AsyncIterator[RequestOutput]:
        """Generate; see `Engine.generate`."""
        sink = self._sink(request)
        self._add_or_raise(request, sink)
        is_finished = False
        try:
            async with aclosing(sink.stream.outputs()) as outputs:
                async for output in outputs:
                    is_finished = output.finish_reason is not None
                    yield output
        finally:
            if not is_finished:
                self.abort(request.request_id)

    async def capture(self, request: CaptureRequest) -> CaptureResult:
        """Read activations; see `Engine.capture`."""
        parts = capture_requests(request)
        sinks = [self._sink(part) for part in parts]
        await self._last_outputs(parts, sinks)
        return capture_result(request, [sink.activations for sink in sinks])

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """Score known text; see `Engine.score`."""
        parts = score_requests(request)
        outputs = await self._last_outputs(parts, [self._sink(part) for part in parts])
        return score_result(request, [output.score for output in outputs])

    def abort(self, request_id: str) -> None:
        """End a request within one step; unknown ids are ignored."""
        self._submit(partial(self._core.abort, request_id))

    def info(self) -> EngineInfo:
        """The facts that are fixed after load."""
        return self._info

    def stats(self) -> EngineStats:
        """A snapshot of the numbers that change while serving."""
        is_healthy = not self._is_hung() and not self._is_over
        num_arriving = max(self._num_submitted - self._num_added, 0)  # since the step began
        stats = self._core.stats(is_healthy=is_healthy, is_draining=self._is_draining)
        return replace(stats, num_requests_waiting=stats.num_requests_waiting + num_arriving)

    async def drain(self, timeout_seconds: float) -> None:
        """Refuse new requests, let running ones finish, fail those left at the timeout."""
        self._is_draining = True
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while self._core.has_work or self._commands:
            if asyncio.get_running_loop().time() >= deadline or self._is_over:
                break
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        error = EngineDrainingError("the server is shutting down; send the request again elsewhere")
        self._submit(partial(self._core.fail_all, error))

    def close(self) -> None:
        """Fail what is left and end the thread; waits for the step that runs, unless it hangs."""
        self._is_draining = True
        self._submit(self._stop)
        while self._thread.is_alive() and not self._is_hung():
            self._thread.join(_CLOSE_POLL_SECONDS)

    async def _last_outputs(
        self, parts: Sequence[GenerationRequest], sinks: Sequence[_Sink]
    ) -> list[RequestOutput]:
        """Run requests that generate nothing; all end when one fails or the caller goes away."""
        try:
            for part, sink in zip(parts, sinks, strict=True):
                self._add_or_raise(part, sink)
            return await gather_or_cancel(sink.stream.last() for sink in sinks)
        finally:
            for part in parts:
                self.abort(part.request_id)

    def _stop(self) -> None:
        self._core.fail_all(EngineDrainingError("the server has shut down"))
        self._is_stopping = True

    def _is_hung(self) -> bool:
        return self._core.seconds_since_progress > self._config.step_timeout_seconds

    def _sink(self, request: GenerationRequest) -> _Sink:
        on_overflow = partial(self.abort, request.request_id)
        return _Sink(OutputStream(self._config.stream_queue_size, on_overflow), self._outbox)

    def _add_or_raise(self, request: GenerationRequest, sink: _Sink) -> None:
        if self._is_draining:
            raise EngineDrainingError("the server is shutting down; send the request elsewhere")
        if not self._submit(partial(self._add, request, sink), num_requests=1):
            raise EngineDeadError(_STOPPED)

    def _add(self, request: GenerationRequest, sink: _Sink) -> None:
        self._core.add(request, sink)
        self._num_added += 1

    def _submit(self, command: Callable[[], None], *, num_requests: int = 0) -> bool:
        """Have the engine's thread do something; False when it never will."""
        with self._wake:
            if self._is_over:
                return False
            self._commands.append(command)
            self._num_submitted += num_requests
            self._wake.notify()
            return True

    def _run(self) -> None:
        torch.set_num_threads(self._info.num_threads)  # of this thread's own OpenMP team
        try:
            self._serve()
        except Exception:
            _log.exception("engine_loop_failed")
        with self._wake:
            self._is_over = True  # from here on nothing is submitted, so nothing waits forever
        self._do_commands()
        self._core.fail_all(EngineDeadError(_STOPPED))
        self._flush()

    def _serve(self) -> None:
        while not self._is_stopping:
            with self._wake:
                while not self._commands and not self._core.has_work:
                    self._wake.wait()
            self._do_commands()
            if self._core.has_work:
                self._core.step()
            self._flush()
            if self._core.keeps_failing:
                _log.critical("engine_stops", reason="steps keep failing")
                return

    def _do_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _flush(self) -> None:
        outbox = self._outbox[:]
        self._outbox.clear()
        _deliver(outbox)


class _Sink:
    """Collects one request's outputs during a step; used on the engine's thread."""

    def __init__(
        self, stream: OutputStream, outbox: list[tuple[OutputStream, _StreamItem]]
    ) -> None:
        self.stream = stream
        self.activations: Mapping[SitePoint, Tensor] = {}
        self._outbox = outbox

    def emit(self, output: RequestOutput) -> None:
        self._outbox.append((self.stream, output))

    def captured(self, activations: Mapping[SitePoint, Tensor]) -> None:
        self.activations = activations

    def fail(self, error: EngineError) -> None:
        self._outbox.append((self.stream, error))


class OutputStream:
    """A bounded queue owned by one event loop; the engine never waits for its reader."""

    def __init__(self, max_items: int, on_overflow: Callable[[], None]) -> None:
        """Belong to the running event loop.

        Args:
            max_items: Outputs the reader may be behind.
            on_overflow: Called once, on the loop, when it is further behind.
        """
        self.loop = asyncio.get_running_loop()
        self._max_items = max_items
        self._on_overflow = on_overflow
        self._items: asyncio.Queue[_StreamItem] = asyncio.Queue()
        self._is_closed = False

    def push(self, item: _StreamItem) -> None:
        """Add an item; only on the owning loop."""
        if self._is_closed:
            return
        if self._items.qsize() >= self._max_items:
            self._is_closed = True
            self._items = asyncio.Queue()
            item = SlowClientError(
                f"the reader is {self._max_items} outputs behind; the request was cancelled"
            )
            self._on_overflow()
        self._items.put_nowait(item)

    async def outputs(self) -> AsyncGenerator[RequestOutput, None]:
        """Outputs until the one with a finish reason.

        Raises:
            EngineError: The request failed.
        """
        while True:
            item = await self._items.get()
            if isinstance(item, EngineError):
                raise item
            yield item
            if item.finish_reason is not None:
                return

    async def last(self) -> RequestOutput:
        """The output with the finish reason.

        Raises:
            EngineError: The request failed.
        """
        async with aclosing(self.outputs()) as outputs:
            return [output async for output in outputs][-1]


def _deliver(items: Sequence[tuple[OutputStream, _StreamItem]]) -> None:
    """Hand a step's outputs to their loops, waking each loop once; from the engine's thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[OutputStream, _StreamItem]]] = {}
    for stream, item in items:
        by_loop.setdefault(stream.loop, []).append((stream, item))
    for loop, batch in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_push_all, batch)


def _push_all(batch: Sequence[tuple[OutputStream, _StreamItem]]) -> None:
    for stream, item in batch:
        stream.push(item)
