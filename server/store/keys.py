"""API keys: made once, stored as digests, checked on every request."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from server.auth import LOCAL_USER, AuthenticationError, KeyScope, PermissionDeniedError, Principal
from steering.errors import InvalidFieldError

from .audit import SYSTEM, Actor, AuditStore
from .clock import WallClock
from .database import Database
from .errors import KeyNotFoundError, StoreError
from .key_token import KeyToken
from .names import check_name, check_text
from .page import Listing, Page
from .tables import KeyRow

__all__ = ["KeyRecord", "KeySpec", "KeyStore", "MintedKey"]

_LOG = logging.getLogger(__name__)
_DUMMY_DIGEST: Final = bytes(32)
_BOOTSTRAP_SCOPES: Final = frozenset(KeyScope) - {KeyScope.RESTRICTED}
_MAX_REQUESTS_PER_MINUTE: Final = 1_000_000
_TOUCH_INTERVAL_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a new key may do.

    Attributes:
        name: For people; need not be unique.
        scopes: At least one.
        profiles_allow: Profiles and aliases it may name; None means any.
        default_profile: Used when a request names none.
        requests_per_minute: None means no limit.
        expires_at: Aware; None means never.

    Raises:
        InvalidFieldError: Naming the field.
    """

    name: str
    scopes: frozenset[KeyScope]
    profiles_allow: frozenset[str] | None = None
    default_profile: str | None = None
    requests_per_minute: int | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        check_text(self.name, param="name", max_length=100)
        if not self.name.strip():
            raise InvalidFieldError("name is empty; expected a name for people", param="name")
        if not self.scopes or not self.scopes <= set(KeyScope):
            raise InvalidFieldError(
                f"scopes are {sorted(self.scopes)}; expected at least one of {', '.join(KeyScope)}",
                param="scopes",
            )
        for name in sorted(self.profiles_allow or ()):
            check_name(name, param="profiles_allow")
        if self.default_profile is not None:
            check_name(self.default_profile, param="default_profile")
        limit = self.requests_per_minute
        if limit is not None and not 1 <= limit <= _MAX_REQUESTS_PER_MINUTE:
            raise InvalidFieldError(
                f"requests_per_minute is {limit}; expected 1 to {_MAX_REQUESTS_PER_MINUTE:,}",
                param="requests_per_minute",
            )
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise InvalidFieldError(
                "expires_at has no time zone; expected one, such as Z", param="expires_at"
            )


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key without its secret.

    Attributes:
        id: Public id, part of the key's text.
        spec: What it may do.
        created_at: UTC.
        created_by: Id of the key that made it.
        revoked_at: UTC; None while it is not revoked.
        last_used_at: UTC, to the minute.
    """

    id: str
    spec: KeySpec
    created_at: datetime
    created_by: str | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def is_active(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        expires_at = self.spec.expires_at
        return self.revoked_at is None and (expires_at is None or now < expires_at)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key with its secret, which is shown once and kept nowhere."""

    record: KeyRecord
    secret: str = field(repr=False)


class KeyStore:
    """API keys. Thread-safe."""

    def __init__(
        self,
        database: Database,
        audit: AuditStore,
        clock: WallClock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: clock: UTC now, for expiry; monotonic: seconds, spaces out writes of last use."""
        self._database = database
        self._audit = audit
        self._clock = clock
        self._monotonic = monotonic
        self._touched: dict[str, float] = {}
        self._lock = threading.Lock()

    def create(self, spec: KeySpec, *, minter: Principal, by: Actor) -> MintedKey:
        """Make a key that may do no more than `minter`.

        Raises:
            PermissionDeniedError: `minter` is no admin, or lacks a scope or profile of `spec`.
        """
        minter.require(KeyScope.ADMIN)
        minter.require(*spec.scopes, param="scopes")
        _require_profiles(spec, minter)
        token = KeyToken.mint()
        record = self._database.write(lambda session: self._insert(session, spec, token, by))
        return MintedKey(record, token.text)

    def create_first(self, name: str = "admin") -> MintedKey | None:
        """The first key of a new server, with every scope but `restricted`; None if any exists."""
        if self.exist():
            return None
        spec = KeySpec(name, _BOOTSTRAP_SCOPES)
        return self.create(spec, minter=LOCAL_USER, by=SYSTEM)

    def exist(self) -> bool:
        """Whether a key was ever made; revoking the last one does not open the server."""
        with self._database.reading() as session:
            return session.scalars(select(KeyRow.id).limit(1)).first() is not None

    def get(self, key_id: str) -> KeyRecord:
        """One key.

        Raises:
            KeyNotFoundError: There is none.
        """
        with self._database.reading() as session:
            row = session.get(KeyRow, key_id)
            if row is None:
                raise _not_found(key_id)
            return _record(row)

    def list(self, cursor: str | None = None, limit: int = 50) -> Page[KeyRecord]:
        """Keys by id, revoked ones too.

        Raises:
            InvalidCursorError: Another listing gave out the cursor.
        """
        listing = Listing("keys", (), limit)
        after = listing.after(cursor, str)
        query = select(KeyRow).order_by(KeyRow.id).limit(limit + 1)
        if after is not None:
            query = query.where(KeyRow.id > after)
        with self._database.reading() as session:
            rows = session.scalars(query).all()
            return listing.page(rows, lambda row: row.id, _record)

    def revoke(self, key_id: str, *, by: Actor) -> KeyRecord:
        """End a key for good, at once; no effect where it is revoked already.

        Raises:
            KeyNotFoundError: There is none.
        """

        def work(session: Session) -> KeyRecord:
            row = session.get(KeyRow, key_id, with_for_update=True)
            if row is None:
                raise _not_found(key_id)
            if row.revoked_at is None:
                row.revoked_at = self._clock()
                session.flush()
                self._audit.record(session, "key.revoke", f"key {key_id}", by=by)
            return _record(row)

        return self._database.write(work)

    def authenticate(self, token: bytes) -> Principal:
        """The holder of a key, from the bytes a client sent.

        One comparison of digests in constant time, with a dummy where the id is unknown; one
        error for every reason.

        Raises:
            AuthenticationError: Malformed, unknown, wrong, expired or revoked.
        """
        parsed = KeyToken.parse(token)
        if parsed is None:
            raise AuthenticationError
        with self._database.reading() as session:
            row = session.get(KeyRow, parsed.key_id)
        stored = _DUMMY_DIGEST if row is None else row.digest
        matches = hmac.compare_digest(stored, parsed.digest)
        if row is None or not matches:
            raise AuthenticationError
        record = _record(row)
        if not record.is_active(self._clock()):
            raise AuthenticationError
        self._touch(record.id)
        return _principal(record)

    def _insert(self, session: Session, spec: KeySpec, token: KeyToken, by: Actor) -> KeyRecord:
        allow = None if spec.profiles_allow is None else sorted(spec.profiles_allow)
        row = KeyRow(
            id=token.key_id,
            name=spec.name,
            digest=token.digest,
            scopes=sorted(spec.scopes),
            profiles_allow=allow,
            default_profile=spec.default_profile,
            requests_per_minute=spec.requests_per_minute,
            created_at=self._clock(),
            created_by=by.key_id,
            expires_at=spec.expires_at,
        )
        session.add(row)
        session.flush()
        detail = {"name": row.name, "scopes": row.scopes, "profiles_allow": allow}
        self._audit.record(session, "key.create", f"key {row.id}", by=by, detail=detail)
        return _record(row)

    def _touch(self, key_id: str) -> None:
        """Write the time of use, at most once a minute; a full disk must not refuse a chat."""
        now = self._monotonic()
        with self._lock:
            last = self._touched.get(key_id)
            if last is not None and now - last < _TOUCH_INTERVAL_SECONDS:
                return
            self._touched[key_id] = now
        statement = update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=self._clock())
        try:
            self._database.write(lambda session: session.execute(statement))
        except StoreError as error:
            _LOG.warning("last use of key %s was not recorded: %s", key_id, error)


def _require_profiles(spec: KeySpec, minter: Principal) -> None:
    """A key confined to some profiles makes only keys confined to them."""
    if minter.profiles_allow is None:
        return
    if spec.profiles_allow is None:
        raise PermissionDeniedError(
            f"key {minter.name!r} has a profile allow-list; profiles_allow must name some of "
            f"{', '.join(sorted(minter.profiles_allow))}",
            param="profiles_allow",
        )
    for name in sorted(spec.profiles_allow):
        minter.require_profile(name, param="profiles_allow")


def _record(row: KeyRow) -> KeyRecord:
    spec = KeySpec(
        name=row.name,
        scopes=frozenset(map(KeyScope, row.scopes)),
        profiles_allow=None if row.profiles_allow is None else frozenset(row.profiles_allow),
        default_profile=row.default_profile,
        requests_per_minute=row.requests_per_minute,
        expires_at=row.expires_at,
    )
    return KeyRecord(
        id=row.id,
        spec=spec,
        created_at=row.created_at,
        created_by=row.created_by,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _principal(record: KeyRecord) -> Principal:
    spec = record.spec
    return Principal(
        key_id=record.id,
        name=spec.name,
        scopes=spec.scopes,
        profiles_allow=spec.profiles_allow,
        default_profile=spec.default_profile,
        requests_per_minute=spec.requests_per_minute,
    )


def _not_found(key_id: str) -> KeyNotFoundError:
    return KeyNotFoundError(f"there is no key {key_id!r}; GET /v1/admin/keys lists them")
