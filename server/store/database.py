"""Connections, transactions and migrations of one database."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from .canonical import canonical_json
from .errors import (
    ConflictError,
    InsufficientStorageError,
    SchemaError,
    StoreError,
    StoreReplacedError,
    StoreUnavailableError,
)

_T = TypeVar("_T")

BUSY_TIMEOUT_SECONDS: Final = 5.0
"""How long a writer waits for another one (SQLite's lock, PostgreSQL's row locks)."""

_STATEMENT_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 3
_POOL_SECONDS: Final = 5.0
_NUM_CONNECTIONS: Final = 24  # more than threads that ask at once
_SILENCE = {  # of a machine that has gone
    "connect_timeout": str(_CONNECT_SECONDS),
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_ATTEMPTS: Final = 10
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_MIGRATION_LOCK: Final = 0x636F7873  # any constant; PostgreSQL's advisory lock of our migrations
_RETRYABLE_STATES: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_FULL_STATES: Final = frozenset({"53100"})
_FULL_CODES: Final = frozenset({sqlite3.SQLITE_FULL})


class Database:
    """Sessions for reading and transactions for writing. Thread-safe.

    SQLite: WAL, foreign keys, full synchronisation (the row is written last and must stay), and
    BEGIN IMMEDIATE for writers, so that a transaction never fails for having read first.
    PostgreSQL: whatever waits for it, or for a lock in it, ends within seconds.
    """

    def __init__(self, url: str | URL) -> None:
        """Use the SQLite or PostgreSQL database at `url`; opened at the first use."""
        self._engine = _create_engine(url, is_bounded=True)
        self._file = _DatabaseFile.of(self._engine.url)
        writers = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        self._read = sessionmaker(self._engine, expire_on_commit=False)
        self._write = sessionmaker(writers, expire_on_commit=False)

    @property
    def url(self) -> URL:
        """The database's address, which may hold a password."""
        return self._engine.url

    @property
    def is_shared(self) -> bool:
        """Whether several servers may use it at once."""
        return self._engine.dialect.name != "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session whose changes are not kept.

        Raises:
            StoreUnavailableError: The database cannot be reached.
        """
        self._check_file()
        try:
            with _translated(), self._read() as session:
                yield session
        except _LostRace as error:
            raise StoreUnavailableError(
                f"the database gave up a read: {error.__cause__}"
            ) from error

    def write(self, work: Callable[[Session], _T]) -> _T:
        """Run `work` in one transaction and commit; what it raises rolls back.

        A unique constraint may decide against `work` when another writer was first. It then runs
        again in a new transaction and sees what that writer did.

        Raises:
            ConflictError: Other writers were first every time.
            InsufficientStorageError: The disk is full.
            StoreUnavailableError: The database cannot be reached or was busy too long.
        """
        for _ in range(_ATTEMPTS):
            self._check_file()
            try:
                with _translated(), self._write.begin() as session:
                    done = work(session)
            except _LostRace:
                continue
            self._check_file()  # what went into a file that is gone is not called written
            return done
        raise ConflictError(
            f"other writers changed the same names {_ATTEMPTS} times in a row; try again"
        )

    def close(self) -> None:
        """Close every connection; SQLite's log is folded into the database file."""
        self._engine.dispose()

    def _check_file(self) -> None:
        if self._file is not None:
            self._file.check()


class _DatabaseFile:
    """A database's file, known by its device and inode, to notice when it is taken away.

    SQLite goes on with a file that was removed or replaced as if nothing had happened, and what it
    writes is gone once the last connection is closed.

    Args:
        path: It need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = self._read_identity()

    @classmethod
    def of(cls, url: URL) -> Self | None:
        """The file of a database; None where it has none."""
        name = url.database
        if url.get_backend_name() != "sqlite" or not name or name.startswith((":memory:", "file:")):
            return None
        return cls(Path(name))

    def check(self) -> None:
        """Make sure that the file is still the one it was.

        Raises:
            StoreReplacedError: It is gone, or another is in its place.
        """
        found = self._read_identity()
        if self._identity is None:
            self._identity = found
        elif found != self._identity:
            raise StoreReplacedError(
                "the database's file was removed or replaced while the server ran, and what is "
                "written now would be lost; put the file back, or restart the server to use the "
                "one that is there"
            )

    def _read_identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


def serialize(session: Session, subject: str) -> None:
    """Make other writers that name the same subject wait until this transaction ends.

    For what has no row to lock. SQLite's writers wait for each other in any case.
    """
    if session.get_bind().dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], signed=True)
        session.execute(select(func.pg_advisory_xact_lock(key)))


def upgrade(url: str | URL) -> None:
    """Bring the schema to this server's version; does nothing where it is there already.

    Several servers may start at once: one migrates, the others wait.

    Raises:
        SchemaError: The database is newer than this server.
        StoreUnavailableError: The database cannot be reached, or the file is not a database.
    """
    engine = _create_engine(url, is_bounded=False)  # a migration takes as long as it takes
    try:
        with _translated(), engine.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin() as c:
            _migrate(c)
    finally:
        engine.dispose()


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaError(
            f"the database's schema is not one this server knows ({error}); start the server "
            "version that wrote it, or give another database"
        ) from error


class _LostRace(Exception):
    """Another writer was first; the transaction may be tried again."""


@contextmanager
def _translated() -> Iterator[None]:
    """Turn errors of the driver into ours."""
    try:
        yield
    except IntegrityError as error:
        raise _LostRace from error
    except DBAPIError as error:
        raise _translate(error) from error
    except PoolTimeoutError as error:
        raise StoreUnavailableError(f"no database connection became free: {error}") from error


def _translate(error: DBAPIError) -> Exception:
    state = getattr(error.orig, "sqlstate", None)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if state in _RETRYABLE_STATES:
        return _LostRace()
    if state in _FULL_STATES or code in _FULL_CODES:
        return InsufficientStorageError(
            "the database's disk is full; free space there, then try again"
        )
    return StoreUnavailableError(f"the database cannot be used: {error.orig}")


def _create_engine(url: str | URL, *, is_bounded: bool) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:  # its text holds the URL, and so perhaps a password
        raise StoreError(
            "the database URL cannot be read; expected one like postgresql://user@host/database"
        ) from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(
            f"the database URL is for {parsed.get_backend_name()!r}; expected sqlite or postgresql"
        )
    is_remote = parsed.get_backend_name() != "sqlite"
    if is_remote:
        own = {"client_encoding": "utf8", **_SILENCE}
        parsed = parsed.set(query={**own, **parsed.query, "client_encoding": "utf8"})
    try:
        engine = create_engine(
            parsed,
            json_serializer=canonical_json,
            pool_pre_ping=is_remote,
            **_pool_options(parsed),
        )
    except (ArgumentError, ImportError) as error:
        raise StoreError(
            f"the database URL's driver is {parsed.drivername!r}, which cannot be used: {error}"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _prepare_postgresql)
        if is_bounded:
            event.listen(engine, "connect", _bound_statements)
        if is_bounded and parsed.get_driver_name() == "psycopg":
            event.listen(engine, "do_connect", _connect_bounded)
    return engine


def _pool_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite" and _DatabaseFile.of(url) is None:
        return {}  # in memory: one connection
    return {
        "pool_size": 8,
        "max_overflow": _NUM_CONNECTIONS - 8,
        "pool_timeout": _POOL_SECONDS,
    }


def _connect_bounded(_dialect: Any, _record: Any, args: Any, options: Any) -> Any:
    from .bounded_connection import BoundedConnection  # psycopg is there only where it is used

    return BoundedConnection.connect(*args, **options)


def _bound_statements(connection: Any, _record: Any) -> None:
    milliseconds = int(_STATEMENT_SECONDS * 1000)
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = {milliseconds}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {10 * milliseconds}")
    connection.commit()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: it begins them late and deferred.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}")
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.commit()
