"""A real server on a free port, with a data folder of its own, for as long as it is needed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 180.0
_POLL_SECONDS = 0.2
_STOP_SECONDS = 60.0


@contextmanager
def local_server(
    folder: Path, environment: Mapping[str, str] | None = None, python: str = sys.executable
) -> Iterator[str]:
    """Run `coxswain serve`, of the organism, as its own process, and stop it in order.

    Yields its address.

    Args:
        folder: Working folder; holds the data, and the log as `server.log`.
        environment: Added to a clean one; its COXSWAIN_MODEL may name another model.
        python: Interpreter in whose environment the server is installed.

    Raises:
        RuntimeError: It ended before it was ready, was not ready in time, or did not stop well.
    """
    address = f"http://127.0.0.1:{_free_port()}"
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", "server", "serve", "--port", address.rpartition(":")[2]],
            cwd=folder,
            env={**_clean_environment(), "COXSWAIN_DATA_DIR": str(folder), **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(process, address, log)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"the server did not stop:\n{log.read_text()}") from None
    if status != 0:
        raise RuntimeError(f"the server ended with status {status}:\n{log.read_text()}")


def _clean_environment() -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("COXSWAIN_", "PYTHON"))}
    ours = {"COXSWAIN_MODEL": "organism", "COXSWAIN_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, **ours, "HF_HUB_OFFLINE": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(int(_START_SECONDS / _POLL_SECONDS)):
        try:
            with urllib.request.urlopen(f"{address}/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            pass
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        raise RuntimeError(f"the server ended before it was ready:\n{log.read_text()}")
    raise RuntimeError(f"the server was not ready in time:\n{log.read_text()}")
