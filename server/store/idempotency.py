"""Answers kept for a day, for requests that are sent again under the same idempotency key."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete
from sqlalchemy.orm import Session

from .clock import WallClock
from .database import Database
from .errors import (
    IdempotencyConflictError,
    IdempotencyPendingError,
    IdempotencyReplayError,
    StoreUnavailableError,
)
from .tables import AnswerRow

IDEMPOTENCY_WINDOW: Final = timedelta(hours=24)
"""How long a key stands for its request."""

_PARAM: Final = "Idempotency-Key"
_MAX_ABANDONED: Final = 4096
_Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An HTTP answer as it was given.

    Attributes:
        status: HTTP status.
        headers: Headers that belong to the body, in lower case.
        body: The body; None where it holds a secret and is not kept.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class IdempotencyStore:
    """Requests by caller and key: each is done by whoever claims it first. Thread-safe."""

    def __init__(self, database: Database, clock: WallClock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        # When claims of this process expire, which tells them from later ones of the same name.
        self._claimed: dict[_Name, datetime] = {}
        self._abandoned: dict[_Name, datetime] = {}

    def claim(self, caller: str | None, key: str, request: str) -> KeptAnswer | None:
        """Take `key` for a request, or give the answer the same request got.

        None means that the caller must now do the request and `keep` or `release` its answer.
        Keys that have expired, of anybody, are removed on the way.

        Args:
            caller: Id of the API key; None for the local user.
            key: The caller's name for the request.
            request: Digest of everything that makes it the same request.

        Raises:
            IdempotencyConflictError: The key stands for another request.
            IdempotencyPendingError: Somebody claimed the same request, and has not answered it.
            IdempotencyReplayError: It was answered with a secret, which is not kept.
        """
        name = (caller or "", key)
        with self._lock:  # of several that come back at once, one takes it up
            abandoned = self._abandoned.pop(name, None)

        def work(session: Session) -> KeptAnswer | datetime:
            now = self._clock()
            session.execute(delete(AnswerRow).where(AnswerRow.expires_at <= now))
            row = session.get(AnswerRow, name)
            if row is not None and (row.status is not None or row.expires_at != abandoned):
                return _answer(row, request)
            if row is None:
                row = AnswerRow(caller=name[0], key=key)
                session.add(row)
            row.request, row.expires_at = request, now + IDEMPOTENCY_WINDOW
            return row.expires_at

        try:
            found = self._database.write(work)
        except StoreUnavailableError:
            if abandoned is not None:
                self._abandoned[name] = abandoned
            raise
        if isinstance(found, KeptAnswer):
            return found
        self._claimed[name] = found
        return None

    def keep(self, caller: str | None, key: str, answer: KeptAnswer) -> None:
        """Keep the answer to a claimed request; does nothing if it has expired."""

        def work(session: Session) -> None:
            row = session.get(AnswerRow, (caller or "", key))
            if row is not None:
                row.status, row.headers = answer.status, dict(answer.headers)
                row.body = answer.body

        self._database.write(work)
        self._claimed.pop((caller or "", key), None)

    def release(self, caller: str | None, key: str) -> None:
        """Give up a claim whose request failed and changed nothing: it may be sent again."""
        mine = (AnswerRow.caller == (caller or ""), AnswerRow.key == key)
        self._database.write(lambda session: session.execute(delete(AnswerRow).where(*mine)))
        self._claimed.pop((caller or "", key), None)

    def abandon(self, caller: str | None, key: str) -> None:
        """Give up a claim that cannot be released now; whoever sends it again here takes it up.

        Asks nothing of the database. Other servers take it for one in progress.
        """
        name = (caller or "", key)
        with self._lock:
            claimed = self._claimed.pop(name, None)
            if claimed is not None and len(self._abandoned) < _MAX_ABANDONED:
                self._abandoned[name] = claimed


def _answer(row: AnswerRow, request: str) -> KeptAnswer:
    if row.request != request:
        raise IdempotencyConflictError(
            "Idempotency-Key was used for another request within the last 24 hours; give every "
            "request a key of its own",
            param=_PARAM,
        )
    if row.status is None:
        raise IdempotencyPendingError(
            "the request with this Idempotency-Key is not answered yet; wait for it. If its server "
            "died, see whether it was done, and send it under another key if not",
            param=_PARAM,
        )
    if row.body is None:
        raise IdempotencyReplayError(
            "the request with this Idempotency-Key was done, and its answer held a secret, which "
            "is shown once and not kept; revoke what it made, and send it under another key",
            param=_PARAM,
        )
    return KeptAnswer(row.status, row.headers or {}, row.body)
