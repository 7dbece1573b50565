"""A process that uploads, and dies where it is told to; run by the crash and race tests.

Reads one job a line, runs it in forked children (so that torch is imported once), and answers
`dead` with their exit codes when they are gone. A child that is to be killed prints its id first.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch

from server.store import SYSTEM, Store

from . import samples

_WIDTH = 200_000


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _half_write(descriptor: int, data: bytes) -> int:
    os.pwrite(descriptor, bytes(data[: len(data) // 2]), 0)
    _die()
    return 0


def _after(real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        real(*arguments)
        _die()

    return call


def _arm(store: Store, point: str) -> None:
    """Make the next call of one step of an upload the process's last."""
    if point == "write":
        os.write = _half_write  # type: ignore[assignment]
    elif point == "fsync":
        os.fsync = _die
    elif point == "rename":
        os.replace = _die
    elif point == "renamed":
        os.replace = _after(os.replace)
    elif point == "row":
        store.database.write = _die  # type: ignore[method-assign, assignment]
    elif point == "commit":
        store.audit.record = _die  # type: ignore[method-assign, assignment]


def _upload(store: Store, name: str, seed: int, width: int = _WIDTH) -> None:
    value = samples.direction(name, seed, width=width)
    store.directions.put(value, samples.blob(value), by=SYSTEM)


def _crash(data_dir: str, seed: int, point: str) -> None:
    store = Store.open(data_dir, low_water_bytes=0)
    _arm(store, point)
    _say(os.getpid())
    for number in range(100):
        _upload(store, f"d{number % 3}", seed * 1000 + number)


def _race(data_dir: str, url: str, name: str, count: int) -> None:
    store = Store.open(data_dir, url, low_water_bytes=0)
    for seed in range(count):
        _upload(store, name, seed, width=16)
    store.close()


def _fork(work: Callable[..., None], *arguments: Any) -> int:
    child = os.fork()
    if child == 0:
        work(*arguments)
        os._exit(0)
    return child


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        match line.split():
            case ["crash", data_dir, seed, point]:
                children = [_fork(_crash, data_dir, int(seed), point)]
            case ["race", data_dir, url, name, count]:
                children = [_fork(_race, data_dir, url, name, int(count)) for _ in range(2)]
            case _:
                raise SystemExit(f"unknown job {line!r}")
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        _say("dead", *codes)


if __name__ == "__main__":
    main()
