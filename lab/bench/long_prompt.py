"""What a long prompt costs short chats that stream beside it, and they it, on one engine.

    taskset -c 1 python -m lab.bench.long_prompt --model DIR --dtype float32 [--long-tokens 8000]

`--chats` users send short chats one after another, each streamed to its end; once every user has
had an answer the long prompt arrives, and the users go on until its last token. Reported are the
times of chats sent before it and of those sent while it is prefilled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from server.engine.async_engine import AsyncEngine
from server.engine.engine import EngineConfig
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams


@dataclass
class Times:
    """Seconds, of chats in one phase.

    Attributes:
        first: To the first token of each chat.
        between: Between the tokens of all of them.
    """

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        """Counts, medians and extremes."""
        return {"chats": len(self.first), "ttft": _spread(self.first), "itl": _spread(self.between)}


class Users:
    """Users who chat one after another, and the one with a long prompt."""

    def __init__(self, engine: AsyncEngine, options: argparse.Namespace) -> None:
        self._engine = engine
        self._options = options
        self._random = random.Random(0)
        self._phase = "before"
        self._times = {"before": Times(), "beside": Times()}
        self._has_answer = asyncio.Event()
        self._longest = 0.0
        self._num_served = 0
        self._num_sent = 0

    async def run(self) -> dict[str, object]:
        """Everything, to the long prompt's last token."""
        chats = [asyncio.create_task(self._chat()) for _ in range(self._options.chats)]
        watch = asyncio.create_task(self._watch())
        await self._has_answer.wait()
        self._phase, sent = "beside", time.perf_counter()
        tokens = [at - sent async for at in self._send(self._options.long_tokens, 16)]
        for task in (*chats, watch):
            task.cancel()
        return {
            "long": {"ttft": round(tokens[0], 2), "total": round(tokens[-1], 2)},
            **{name: times.report() for name, times in self._times.items() if times.first},
            "longest_seconds_without_progress": round(self._longest, 2),
            "step_seconds": self._engine.stats().step_seconds.counts,
        }

    async def _watch(self) -> None:
        while True:
            self._longest = max(self._longest, self._engine.stats().seconds_since_progress)
            await asyncio.sleep(0.05)

    async def _chat(self) -> None:
        while True:
            times, last, sent = self._times[self._phase], None, time.perf_counter()
            async for at in self._send(48, 24):
                times = self._times[self._phase]
                if last is None:
                    times.first.append(at - sent)
                else:
                    times.between.append(at - last)
                last = at
            self._num_served += 1
            if self._num_served >= 2 * self._options.chats:
                self._has_answer.set()

    async def _send(self, num_tokens: int, num_new: int) -> AsyncIterator[float]:
        self._num_sent += 1
        vocab_size = self._engine.info().vocab_size
        prompt = tuple(self._random.randrange(vocab_size // 2) for _ in range(num_tokens))
        sampling = SamplingParams(max_tokens=num_new, temperature=0.0, ignore_eos=True)
        request = GenerationRequest(f"request-{self._num_sent}", prompt, sampling)
        async for output in self._engine.generate(request):
            for _ in output.token_ids:
                yield time.perf_counter()


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds) or [0.0]
    return {
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
        "most": round(ordered[-1], 3),
    }


def main() -> None:
    """Measure once."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", required=True, help="folder of the model")
    options.add_argument("--dtype", default="bfloat16")
    options.add_argument("--long-tokens", type=int, default=8000)
    options.add_argument("--chats", type=int, default=2)
    arguments = options.parse_args()
    config = EngineConfig(
        arguments.model, device="cpu", dtype=arguments.dtype, num_threads=1, kv_cache_bytes=1 << 30
    )
    engine = AsyncEngine.start(config)
    print(json.dumps(asyncio.run(Users(engine, arguments).run()), indent=1), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
