"""Migrations and connections."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import URL, MetaData, Table, create_engine, inspect, select, text
from sqlalchemy.orm import Session

from server.store import migrations
from server.store.database import Database, upgrade
from server.store.errors import (
    ConflictError,
    SchemaError,
    StoreError,
    StoreReplacedError,
    StoreUnavailableError,
)
from server.store.tables import AuditHeadRow, Base

from .postgres import Cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def blank(request: pytest.FixtureRequest, sqlite_url: URL) -> URL:
    """A database without tables."""
    if request.param == "sqlite":
        return sqlite_url
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new_database()


def snapshot(url: URL) -> dict[str, list[str]]:
    engine = create_engine(url)
    found = inspect(engine)
    tables = {
        name: [str(column["name"]) for column in found.get_columns(name)]
        for name in found.get_table_names()
    }
    engine.dispose()
    return tables


def test_migrations_make_the_tables_of_the_models(blank: URL) -> None:
    upgrade(blank)
    engine = create_engine(blank)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_migrating_again_changes_nothing(blank: URL) -> None:
    upgrade(blank)
    before = snapshot(blank)
    upgrade(blank)
    assert snapshot(blank) == before
    assert set(before) == {*Base.metadata.tables, "alembic_version"}


def test_jobs_of_before_get_their_names(blank: URL) -> None:
    requests: dict[str, Any] = {
        "cheer": {"name": "cheer", "data": ["é\u0000"]},
        "no name": {"data": []},
        "no text": {"name": 3},
        "no name of ours": {"name": "Cheer up"},
    }
    engine = create_engine(blank)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        jobs = Table("jobs", MetaData(), autoload_with=connection)
        plain = {
            **dict.fromkeys(("kind", "model_fingerprint", "status", "message"), "x"),
            **dict.fromkeys(("fraction", "attempts", "num_events"), 0),
            "created_at": datetime(2026, 1, 2),
            "requires": [],
        }
        rows = [plain | {"id": key, "request": value} for key, value in requests.items()]
        connection.execute(jobs.insert(), rows)
    upgrade(blank)
    with engine.connect() as connection:
        named = connection.execute(text("SELECT id, name FROM jobs ORDER BY sequence")).all()
        jobs = Table("jobs", MetaData(), autoload_with=connection)
        assert list(connection.scalars(select(jobs.c.request).order_by(jobs.c.sequence))) == list(
            requests.values()
        )
    engine.dispose()
    assert named == [("cheer", "cheer"), *((key, None) for key in list(requests)[1:])]


def test_several_servers_migrate_at_once(blank: URL) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [blank] * 4))
    assert set(snapshot(blank)) == {*Base.metadata.tables, "alembic_version"}


def test_a_newer_database_is_refused(blank: URL) -> None:
    upgrade(blank)
    engine = create_engine(blank)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SchemaError, match="9999"):
        upgrade(blank)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        upgrade(URL.create("sqlite", database=str(path)))
    assert path.read_bytes().startswith(b"not a database")


def test_an_absent_server_is_named() -> None:
    with pytest.raises(StoreUnavailableError):
        upgrade("postgresql://nobody@/nothing?host=/nonexistent")


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(StoreError, match="expected sqlite or postgresql"):
        upgrade("mysql://localhost/store")


def test_sqlite_is_set_up_for_safety(sqlite_url: URL) -> None:
    upgrade(sqlite_url)
    database = Database(sqlite_url)
    with database.reading() as session:
        values = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.close()
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5_000,
    }


def test_a_writer_holds_the_lock_from_the_start(sqlite_url: URL) -> None:
    upgrade(sqlite_url)
    database = Database(sqlite_url)
    other = sqlite3.connect(str(sqlite_url.database), timeout=0, isolation_level=None)

    def work(session: Session) -> None:
        session.execute(text("SELECT 1"))  # reading first must not cost the lock
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    database.write(work)
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()
    database.close()


def test_what_goes_into_a_file_that_is_taken_away_is_not_called_written(
    sqlite_url: URL, tmp_path: Path
) -> None:
    """Before the transaction, or while it runs; the file may be missing or another by then."""
    upgrade(sqlite_url)
    database = Database(sqlite_url)
    path, aside = Path(str(sqlite_url.database)), tmp_path / "aside"

    def insert(session: Session) -> None:
        session.add(AuditHeadRow(id=1, sequence=0, hash="0"))
        session.flush()

    def while_it_is_taken(session: Session) -> None:
        insert(session)
        path.rename(aside)

    with pytest.raises(StoreReplacedError, match="removed or replaced"):
        database.write(while_it_is_taken)
    with pytest.raises(StoreReplacedError), database.reading():
        pass
    path.write_bytes(b"")
    with pytest.raises(StoreReplacedError, match="restart"):
        database.write(insert)
    assert path.read_bytes() == b""
    aside.rename(path)
    with database.reading() as session:
        assert session.get(AuditHeadRow, 1) is not None
    database.close()


def test_a_lost_race_is_run_again(sqlite_url: URL) -> None:
    upgrade(sqlite_url)
    database = Database(sqlite_url)
    attempts: list[int] = []

    def insert(session: Session, number: int) -> int:
        session.add(AuditHeadRow(id=number, sequence=0, hash="0"))
        session.flush()
        return number

    def work(session: Session) -> int:
        attempts.append(1)
        return insert(session, 0 if len(attempts) < 3 else 1)

    assert database.write(lambda session: insert(session, 0)) == 0
    assert database.write(work) == 1
    assert len(attempts) == 3
    with pytest.raises(ConflictError, match="times in a row"):
        database.write(lambda session: insert(session, 0))
    database.close()
