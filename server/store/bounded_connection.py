"""Connections to PostgreSQL that give up a server that does not answer."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen

_T = TypeVar("_T")

ANSWER_SECONDS: Final = 6.0
"""Longest wait for an answer; a little longer than the server itself allows a statement."""

_INTERVAL_SECONDS: Final = 0.1  # psycopg's own


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself where an answer does not come in time.

    Timeouts of PostgreSQL are kept by PostgreSQL, and those of TCP by the machine it runs on: of a
    process that is stopped, or a disk that hangs, neither tells.
    """

    def wait(
        self, gen: PQGen[_T], interval: float = _INTERVAL_SECONDS, timeout: float | None = None
    ) -> _T:
        """Wait as psycopg does, but not longer than `ANSWER_SECONDS`.

        Raises:
            psycopg.OperationalError: No answer in time, or any other that psycopg raises.
        """
        try:
            return super().wait(gen, interval, ANSWER_SECONDS if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:  # not an answer of the server: nobody knows where it is
                self.close()
            raise
