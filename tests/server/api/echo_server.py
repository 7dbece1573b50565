"""A server process over the echo engine, for tests that need to kill one.

python -m tests.server.api.echo_server DATA_DIR [--gate] [--die-at fsync|replace] [--drain SECONDS]

It says where it listens in the log line `serving`. `--gate` keeps every answer open after its
first token until SIGUSR1, which lets jobs of kind `steps` go on too; `--die-at` ends it with
SIGKILL in the middle of storing an upload. SIGUSR2 makes its engine look stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from server.app import serve
from server.logs import configure_logs
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store
from tests.server.jobs.fake_kinds import Steps

from .echo_engine import EchoEngine


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--die-at", choices=["fsync", "replace"])
    parser.add_argument("--drain", type=float, default=30.0)
    options = parser.parse_args()
    configure_logs("info", "json")
    store = Store.open(options.data_dir, load=load_direction_blob, low_water_bytes=0)
    settings = Settings(
        data_dir=options.data_dir, port=0, load_demo=False, drain_timeout_seconds=options.drain
    )
    engine = EchoEngine()
    steps = Steps()
    loop = asyncio.get_running_loop()
    if options.gate:
        engine.faults.gate, engine.faults.gate_from = steps.go, 1
        loop.add_signal_handler(signal.SIGUSR1, steps.go.set)
    loop.add_signal_handler(signal.SIGUSR2, setattr, engine, "is_healthy", False)
    if options.die_at:
        setattr(os, options.die_at, die)
    await serve(settings, engine, store, kinds=[steps.kind])  # type: ignore[arg-type]
    store.close()


if __name__ == "__main__":
    asyncio.run(main())
