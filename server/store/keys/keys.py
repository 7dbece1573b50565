"""API keys: made once, stored as digests, checked on every request."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from server.auth.key_token import KeyToken
from server.auth.permissions import (
    AuthenticationError,
    Permission,
    PermissionDeniedError,
    Principal,
)
from server.store.audit import Actor, AuditStore
from server.store.clock import WallClock
from server.store.database import Database
from server.store.errors import KeyNotFoundError
from server.store.page import Listing, Page
from server.store.tables import KeyRow

from .record import KeyRecord, KeySpec, MintedKey

_DUMMY_DIGEST: Final = bytes(32)


class KeyStore:
    """API keys. Thread-safe."""

    def __init__(self, database: Database, audit: AuditStore, clock: WallClock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    def create(self, spec: KeySpec, *, minter: Principal, by: Actor) -> MintedKey:
        """Make a key that may do no more than `minter`.

        Raises:
            PermissionDeniedError: `minter` is no admin, or lacks a permission or profile of `spec`.
        """
        minter.require(Permission.ADMIN)
        _require_at_most(spec, minter)
        token = KeyToken.mint()
        record = self._database.write(lambda session: self._insert(session, spec, token, by))
        return MintedKey(record, token.text)

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
            return KeyRecord.from_row(row)

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
            return listing.page(rows, lambda row: row.id, KeyRecord.from_row)

    def revoke(self, key_id: str, *, revoker: Principal, by: Actor) -> KeyRecord:
        """End a key for good, at once; no effect where it is revoked already.

        Raises:
            KeyNotFoundError: There is none.
            PermissionDeniedError: `revoker` is no admin, or the key may do what it may not.
        """
        revoker.require(Permission.ADMIN)

        def work(session: Session) -> KeyRecord:
            row = session.get(KeyRow, key_id, with_for_update=True)
            if row is None:
                raise _not_found(key_id)
            _require_at_most(KeyRecord.from_row(row).spec, revoker, param="key_id")
            if row.revoked_at is None:
                row.revoked_at = self._clock()
                session.flush()
                self._audit.record(session, "key.revoke", f"key {key_id}", by=by)
            return KeyRecord.from_row(row)

        return self._database.write(work)

    def authenticate(self, token: bytes) -> KeyRecord:
        """The key whose text a client sent.

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
        record = KeyRecord.from_row(row)
        self.require_active(record)
        return record

    def require_active(self, record: KeyRecord) -> None:
        """Check a key that was read before; asks nothing of the database.

        Raises:
            AuthenticationError: It was revoked then, or has expired since.
        """
        if not record.is_active(self._clock()):
            raise AuthenticationError

    def note_use(self, key_ids: Collection[str]) -> None:
        """Write that keys are used now; a revoked key keeps the time it has."""
        statement = (
            update(KeyRow)
            .where(KeyRow.id.in_(sorted(key_ids)), KeyRow.revoked_at.is_(None))
            .values(last_used_at=self._clock())
        )
        self._database.write(lambda session: session.execute(statement))

    def _insert(self, session: Session, spec: KeySpec, token: KeyToken, by: Actor) -> KeyRecord:
        allow = None if spec.profiles_allow is None else sorted(spec.profiles_allow)
        row = KeyRow(
            id=token.key_id,
            name=spec.name,
            digest=token.digest,
            scopes=sorted(spec.permissions),
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
        return KeyRecord.from_row(row)


def _require_at_most(spec: KeySpec, caller: Principal, *, param: str | None = None) -> None:
    """Check that a key to be made or ended may do no more than `caller`.

    A key confined to some profiles has power only over keys confined to them. `param` is named in
    errors instead of the field of the spec.
    """
    caller.require(*spec.permissions, param=param or "scopes")
    if caller.profiles_allow is None:
        return
    if spec.profiles_allow is None:
        raise PermissionDeniedError(
            f"key {caller.name!r} has a profile allow-list; profiles_allow must name some of "
            f"{', '.join(sorted(caller.profiles_allow))}",
            param=param or "profiles_allow",
        )
    for name in sorted(spec.profiles_allow):
        caller.require_profile(name, param=param or "profiles_allow")


def _not_found(key_id: str) -> KeyNotFoundError:
    return KeyNotFoundError(f"there is no key {key_id!r}; GET /v1/admin/keys lists them")
