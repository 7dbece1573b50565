"""Who sends a request, and whether they have sent too many."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from server.auth import LOCAL_USER, AuthenticationError, Principal, RateLimitedError
from server.store import KeyStore

__all__ = ["KeysGate"]

_WINDOW_SECONDS: Final = 60.0
_BEARER: Final = b"bearer "


class KeysGate:
    """Admits the holder of a key within its rate; without keys, the local user. Thread-safe.

    Whether keys are needed is decided once, when the server starts: the first key made later
    takes effect with the next start.

    The rate is a leaky bucket: a burst of a minute's requests, refilled steadily, one number per
    key and no list of times.

    Args:
        keys: Where keys are.
        is_open: Whether requests need none.
        monotonic: Seconds of a clock that never jumps.
    """

    def __init__(
        self,
        keys: KeyStore,
        *,
        is_open: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self.is_open = is_open
        self._monotonic = monotonic
        self._drained_at: dict[str, float] = {}  # by key: when its bucket has drained
        self._lock = threading.Lock()

    def admit(self, authorization: bytes) -> Principal:
        """The caller, from the bytes of the `Authorization` header.

        Raises:
            AuthenticationError: No valid key, and one is needed.
            RateLimitedError: The key's limit is reached.
        """
        if self.is_open:
            return LOCAL_USER
        if authorization[: len(_BEARER)].lower() != _BEARER:
            raise AuthenticationError
        caller = self._keys.authenticate(authorization[len(_BEARER) :].strip())
        if caller.requests_per_minute is not None:
            self._check_rate(caller, caller.key_id or "", caller.requests_per_minute)
        return caller

    def _check_rate(self, caller: Principal, key_id: str, per_minute: int) -> None:
        interval = _WINDOW_SECONDS / per_minute
        now = self._monotonic()
        with self._lock:
            drained = max(self._drained_at.get(key_id, now), now)
            wait = drained - now - (_WINDOW_SECONDS - interval)
            if wait <= 1e-9:
                self._drained_at[key_id] = drained + interval
                return
        seconds = max(math.ceil(wait), 1)
        raise RateLimitedError(
            f"key {caller.name!r} may send {per_minute} requests a minute; "
            f"try again in {seconds} seconds",
            retry_after_seconds=seconds,
        )
