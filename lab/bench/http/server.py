"""A server that is measured: started here and kept to one core, or one that runs already."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import IO, Any, Final

import httpx
import psutil

_POLL_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 20
_STILL: Final = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class ServerError(Exception):
    """A server did not start, or did not answer as it was asked; names the server."""


class Server:
    """One side of a comparison, reached over HTTP.

    A server started here is a process group of its own, kept to one core with one thread. Between
    its turns it is stopped (SIGSTOP), so that it costs the others nothing; a server given by its
    address is left alone.

    Args:
        name: How reports call it.
        given: Its address, or the command that starts it, with `{port}` where its port goes.
        core: Core of a server started here.
        model: Id of its model, where the first of `/v1/models` is not the one.

    Attributes:
        url: Where its `/v1` is.
        model: Id of the model it serves; known once it is ready.
    """

    def __init__(self, name: str, given: str, core: int, model: str = "") -> None:
        self.name = name
        self.model = model
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        if given.startswith(("http://", "https://")):
            self.url = given.rstrip("/")
            return
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = ["taskset", "-c", str(core), *shlex.split(given.replace("{port}", str(port)))]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command,
            env=_ONE_THREAD | dict(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_ready(self, seconds: float) -> None:
        """Wait for `GET /v1/models` to answer, and to name a model where none was given.

        Raises:
            ServerError: The process ended, or nothing was served in time.
        """
        deadline = time.monotonic() + seconds
        while not (found := self._ask_models()):
            if self._process is not None and self._process.poll() is not None:
                self._refuse(f"ended with {self._process.returncode} before it was ready")
            if time.monotonic() > deadline:
                self._refuse(f"was not ready in {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        self.model = found

    def pause(self) -> None:
        """Stop its processes where they are; nothing to a server that was not started here."""
        self._signal(signal.SIGSTOP)
        while any(process.status() not in _STILL for process in self._processes()):
            time.sleep(_POLL_SECONDS)

    def resume(self) -> None:
        """Let its processes run again."""
        self._signal(signal.SIGCONT)

    def cpu_seconds(self) -> float | None:
        """Processor seconds of its processes so far; None of a server not started here."""
        if self._process is None:
            return None
        times = [process.cpu_times() for process in self._processes()]
        return sum(time.user + time.system for time in times)

    def stop(self) -> None:
        """End its processes and wait for them; nothing to a server that was not started here."""
        if self._process is None or self._log is None:
            return
        self.resume()
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._signal(signal.SIGKILL)  # what is left of its group
        self._process.wait()
        self._log.close()

    def _ask_models(self) -> str:
        """The id to ask for, or nothing while the server does not answer or has no model yet."""
        try:
            answer = httpx.get(f"{self.url}/v1/models", headers=headers(), timeout=10)
        except httpx.TransportError:
            return ""
        if not answer.is_success:
            return ""
        listed: list[dict[str, Any]] = answer.json()["data"]
        return self.model or (str(listed[0]["id"]) if listed else "")

    def _processes(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _refuse(self, what: str) -> None:
        said = b""
        if self._log is not None:
            self._log.seek(0)
            said = self._log.read()[-4000:]
        raise ServerError(f"server {self.name!r} {what}\n{said.decode(errors='replace')}".rstrip())


def headers() -> dict[str, str]:
    """The key in `OPENAI_API_KEY`, where it is set."""
    key = os.environ.get("OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
