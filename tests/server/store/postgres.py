"""A private PostgreSQL server on a unix socket, for the length of a test run."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, NullPool, create_engine, text

from server.store.database import upgrade
from server.store.tables import Base

_OWNER = "coxswain"
_COUNTER = itertools.count()


class Cluster:
    """Runs as another user where the tests run as root, which PostgreSQL refuses to be."""

    def __init__(self) -> None:
        self._user = _unprivileged_user()
        self._directory = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = self._directory / "data"
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        access = ("-U", _OWNER, "-A", "trust", "-E", "UTF8", "--locale=C")
        self._run("initdb", "-D", self._data, "--no-sync", *access)
        options = f"-k {self._directory} -c listen_addresses= -c fsync=off"
        log = self._directory / "log"
        self._shared: URL | None = None
        self._run("pg_ctl", "-D", self._data, "-l", log, "-o", options, "-w", "start")

    def new_database(self) -> URL:
        """A database without tables."""
        name = f"test_{os.getpid()}_{next(_COUNTER)}"
        engine = create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self._url(name)

    def shared_database(self) -> URL:
        """One database with the present schema, emptied; much cheaper than a new one."""
        if self._shared is None:
            self._shared = self.new_database()
            upgrade(self._shared)
        names = ", ".join(table.name for table in Base.metadata.sorted_tables)
        engine = create_engine(self._shared, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {names}"))
        return self._shared

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of it, as a debugger or a hanging disk would, and let them go on."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)  # first: it starts no more
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGSTOP)
        try:
            yield
        finally:
            for process in (*map(int, children), postmaster):
                os.kill(process, signal.SIGCONT)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._directory)

    def _url(self, database: str) -> URL:
        return URL.create(
            "postgresql+psycopg", _OWNER, database=database, query={"host": str(self._directory)}
        )

    def _run(self, *command: str | Path) -> None:
        # Into files, not pipes: the server inherits them and would keep a pipe open.
        with (self._directory / "commands.log").open("ab") as log:
            subprocess.run(
                command, check=True, stdout=log, stderr=log, cwd=self._directory, user=self._user
            )


def missing() -> str | None:
    """Why no server can be started, or None."""
    absent = [name for name in ("initdb", "pg_ctl", "postgres") if shutil.which(name) is None]
    if absent:
        return f"PostgreSQL's {', '.join(absent)} is not on the PATH"
    try:
        _unprivileged_user()
    except LookupError as error:
        return str(error)
    return None


def _unprivileged_user() -> str | None:
    """Whom to become; None where the tests do not run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise LookupError("the tests run as root, and there is no other user to run PostgreSQL as")
