"""Starting and ending server processes from tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

_ROOT = Path(__file__).parents[3]


class ServerProcess:
    """A child process that serves HTTP on a free port of loopback."""

    def __init__(self, *arguments: str, module: str = "tests.server.api.echo_server") -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=_ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.url = str(self.wait_for("serving")["addresses"][0])

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next log line of that event."""
        seen = []
        for line in self._log:
            seen.append(line)
            if line.startswith("{") and json.loads(line)["event"] == event:
                found: dict[str, Any] = json.loads(line)
                return found
        raise AssertionError(f"the server ended before {event!r}:\n{''.join(seen)}")

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    def wait(self) -> int:
        """Its exit status."""
        self._log.read()
        return self._child.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
        self.wait()
        self._log.close()

    @property
    def _log(self) -> IO[str]:
        assert self._child.stderr is not None
        return self._child.stderr
