"""How often a key may be used."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from .permissions import Allowance, Principal, RateLimitedError

_WINDOW_SECONDS: Final = 60.0
_MAX_TRACKED: Final = 100_000


class RateLimiter:
    """Generic cell rate algorithm, per process: a bucket of n requests refilled at n per minute.

    The state of a key is one number, the theoretical arrival time t: a request at `now` moves it to
    max(t, now) + 60/n and passes while it stays within now + 60 s. Reads a monotonic clock only,
    so that a jump of the wall clock neither blocks a key nor frees it.
    Source: ITU-T I.371, generic cell rate algorithm (virtual scheduling).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: clock: the time in seconds, which never goes back."""
        self._clock = clock
        self._arrivals: dict[str, float] = {}
        self._lock = threading.Lock()

    def admit(self, principal: Principal) -> Allowance | None:
        """Count one request of `principal` and return what is left; None without a limit.

        Thread-safe.

        Raises:
            RateLimitedError: It is over its limit; the request is not counted.
        """
        limit = principal.requests_per_minute
        if limit is None or principal.key_id is None:
            return None
        cost = _WINDOW_SECONDS / limit
        with self._lock:
            now = self._clock()
            self._forget_idle(now)
            arrival = max(self._arrivals.get(principal.key_id, now), now) + cost
            # A tolerance far below one request keeps float sums from refusing the last one.
            if arrival - now > _WINDOW_SECONDS + cost * 1e-6:
                raise self._refusal(principal, limit, arrival - now - cost)
            self._arrivals[principal.key_id] = arrival
        remaining = int((_WINDOW_SECONDS - (arrival - now)) / cost + 1e-6)
        return Allowance(limit, remaining, arrival - now)

    def _refusal(self, principal: Principal, limit: int, full_in: float) -> RateLimitedError:
        seconds = max(1, math.ceil(full_in + _WINDOW_SECONDS / limit - _WINDOW_SECONDS))
        return RateLimitedError(
            f"key {principal.name!r} may send {limit} requests a minute; try again in {seconds} s",
            retry_after_seconds=seconds,
            allowance=Allowance(limit, 0, full_in),
        )

    def _forget_idle(self, now: float) -> None:
        if len(self._arrivals) >= _MAX_TRACKED:
            self._arrivals = {key: at for key, at in self._arrivals.items() if at > now}
