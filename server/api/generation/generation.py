"""Running the sequences of one HTTP request side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from server.engine.engine import Engine
from server.engine.outputs import RequestOutput
from server.engine.request import GenerationRequest

__all__ = ["Outputs", "generate_all"]

Outputs = AsyncGenerator[tuple[int, RequestOutput], None]


async def generate_all(engine: Engine, requests: Sequence[GenerationRequest]) -> Outputs:
    """The outputs of every sequence as they come, each with its index.

    One that fails ends them all. Closing the generator aborts what still runs.

    Raises:
        EngineError: As `Engine.generate`.
    """
    if len(requests) == 1:
        async with aclosing(_outputs(engine, requests[0])) as outputs:
            async for output in outputs:
                yield 0, output
        return
    # One place a sequence: a reader that lags holds back the pumps, and the engine's own bounded
    # queues decide when that is too slow.
    queue: asyncio.Queue[tuple[int, RequestOutput | Exception]] = asyncio.Queue(len(requests))
    pumps = [
        asyncio.create_task(_pump(engine, request, index, queue))
        for index, request in enumerate(requests)
    ]
    try:
        num_running = len(requests)
        while num_running:
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            num_running -= item.finish_reason is not None
            yield index, item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    engine: Engine,
    request: GenerationRequest,
    index: int,
    queue: asyncio.Queue[tuple[int, RequestOutput | Exception]],
) -> None:
    try:
        async with aclosing(_outputs(engine, request)) as outputs:
            async for output in outputs:
                await queue.put((index, output))
    except Exception as error:  # carried to the reader, who raises it
        await queue.put((index, error))


async def _outputs(
    engine: Engine, request: GenerationRequest
) -> AsyncGenerator[RequestOutput, None]:
    outputs = engine.generate(request)
    try:
        async for output in outputs:
            yield output
            if output.finish_reason is not None:
                return
        raise AssertionError(f"the engine ended {request.request_id} without a finish reason")
    finally:
        if isinstance(outputs, AsyncGenerator):
            await outputs.aclose()
        else:
            engine.abort(request.request_id)
