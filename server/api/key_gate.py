"""Who sends a request, and whether they have sent too many."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from server.auth.permissions import LOCAL_USER, Allowance, AuthenticationError, Principal
from server.auth.rate_limit import RateLimiter
from server.last_known import DEFAULT_TERMS, LastKnown, Terms
from server.pools import Pools
from server.store import Actor, KeyRecord, KeyStore
from server.store.errors import StoreError

_BEARER: Final = b"bearer "
_USE_SECONDS: Final = 60.0
_MAX_NOTED: Final = 4096
_log = structlog.get_logger(__name__)


class KeyGate:
    """Admits the holder of a key within its rate; without keys, the local user.

    Used on the event loop only. A key that was found is known for as long as the terms say, by the
    SHA-256 of its text; one that was not is asked for every time. Whether keys are needed is
    decided once, when the server starts: the first key made later takes effect with the next start.

    Args:
        keys: Where keys are.
        pools: Where they are asked for, and where their use is written.
        is_open: Whether requests need none.
        limiter: Counts the requests of keys with a limit.
        terms: How long a key that was found stands.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        keys: KeyStore,
        pools: Pools,
        *,
        is_open: bool,
        limiter: RateLimiter | None = None,
        terms: Terms = DEFAULT_TERMS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._writes = pools.writes
        self._known: LastKnown[bytes, KeyRecord] = LastKnown(pools.reads, terms=terms, clock=clock)
        self._clock = clock
        self._limiter = limiter or RateLimiter()
        self._noted: dict[str, float] = {}
        self._used: set[str] = set()
        self._noting: asyncio.Task[None] | None = None
        self.is_open = is_open

    async def admit(self, authorization: bytes) -> tuple[Principal, Allowance | None]:
        """Return the caller that an `Authorization` header names, and what its limit leaves.

        Raises:
            AuthenticationError: No valid key, and one is needed.
            RateLimitedError: The key's limit is reached.
            StoreUnavailableError: The key is not known, and the store does not say.
        """
        if self.is_open:
            return LOCAL_USER, None
        if authorization[: len(_BEARER)].lower() != _BEARER:
            raise AuthenticationError
        token = authorization[len(_BEARER) :].strip()
        digest = hashlib.sha256(token).digest()
        record = await self._known.get(digest, partial(self._keys.authenticate, token))
        self._keys.require_active(record)
        self._note_use(record.id)
        caller = record.principal
        return caller, self._limiter.admit(caller)

    async def revoke(self, key_id: str, *, revoker: Principal, by: Actor) -> KeyRecord:
        """End a key for good: here at once, on other servers once they ask the store again.

        Raises:
            KeyNotFoundError: There is none.
            PermissionDeniedError: It may do more than `revoker`.
        """
        try:
            return await self._writes.run(self._keys.revoke, key_id, revoker=revoker, by=by)
        finally:  # also where it is not known whether it was written
            self._known.forget(lambda record: record.id == key_id)

    def _note_use(self, key_id: str) -> None:
        """Have a key's time of use written, at most once a minute, while nobody waits for it."""
        now = self._clock()
        if now - self._noted.get(key_id, -_USE_SECONDS) < _USE_SECONDS:
            return
        if len(self._noted) >= _MAX_NOTED:
            self._noted.clear()
        self._noted[key_id] = now
        self._used.add(key_id)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._write_uses())

    async def _write_uses(self) -> None:
        while self._used:
            used, self._used = self._used, set()
            try:
                await self._writes.run(self._keys.note_use, used)
            except StoreError as error:  # a full disk must not refuse a chat
                _log.warning("key_use_not_recorded", keys=sorted(used), reason=str(error))
