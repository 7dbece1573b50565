"""`coxswain store`: what it prints, and its status."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.store import SYSTEM, JobSpec, Store
from tests.server.store.samples import direction, put

from .test_command import run


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[str]:
    """A store with one direction, an old orphan and half a file; the direction's digest."""
    store = Store.open(tmp_path, low_water_bytes=0)
    digest = put(store, direction("kept")).record.sha256
    orphan = store.blobs.put(b"nobody names me")
    os.utime(tmp_path / "artifacts" / orphan, (0, 0))
    (tmp_path / "artifacts" / "x.tmp").write_bytes(b"half")
    yield digest
    store.close()


def test_a_sound_store_gives_status_0(tmp_path: Path, stored: str) -> None:
    result = run("store", "check", "--data-dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    *orphans, summary = result.stdout.splitlines()
    assert [line.split()[0] for line in orphans] == ["orphaned"]
    assert (
        summary == "1 artifact read: 0 damaged, 0 missing; beside them 1 orphan, 1 temporary file"
    )


def test_damage_gives_status_1_and_names_the_directions(tmp_path: Path, stored: str) -> None:
    (tmp_path / "artifacts" / stored).write_bytes(b"other")
    result = run("store", "check", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert f"damaged {stored} of kept@1" in result.stdout


def test_a_changed_audit_log_gives_status_1(tmp_path: Path, stored: str) -> None:
    store = Store.open(tmp_path)
    store.database.write(lambda s: s.connection().exec_driver_sql("DELETE FROM audit_events"))
    store.close()
    result = run("store", "check", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "audit log: " in result.stdout


def test_a_dry_run_removes_nothing(tmp_path: Path, stored: str) -> None:
    folder = tmp_path / "artifacts"
    before = sorted(folder.iterdir())
    shown = run("store", "collect", "--dry-run", "--data-dir", str(tmp_path))
    assert shown.exit_code == 0
    assert "would remove 1 orphan of 15 bytes and 1 temporary file" in shown.stdout
    assert sorted(folder.iterdir()) == before
    done = run("store", "collect", "--data-dir", str(tmp_path))
    assert "removed 1 orphan of 15 bytes and 1 temporary file; left 0 orphans" in done.stdout
    assert sorted(item.name for item in folder.iterdir()) == sorted([stored, "quarantine"])


def test_an_age_in_hours_spares_the_young(tmp_path: Path, stored: str) -> None:
    age = ("--grace-hours", "1e7", "--data-dir", str(tmp_path))
    assert "left 1 orphan too young" in run("store", "collect", *age).stdout


def test_ended_jobs_go_where_a_setting_says_so(tmp_path: Path, stored: str) -> None:
    store = Store.open(tmp_path)
    job = store.jobs.create(JobSpec("fit", {}, "m"), by=SYSTEM, max_queued=9)
    store.jobs.cancel(job.id, by=SYSTEM)
    place, days = ("--data-dir", str(tmp_path)), {"COXSWAIN_JOB_RETENTION_DAYS": "0"}
    assert "job" not in run("store", "collect", *place).stdout
    shown = run("store", "collect", "--dry-run", *place, env=days)
    assert shown.stdout.splitlines()[-1].startswith("would remove 1 job ended more than 0 days ago")
    assert store.jobs.get(job.id) == store.jobs.list().items[0]
    done = run("store", "collect", *place, env=days)
    assert done.exit_code == 0, done.output
    assert "removed 1 job ended more than 0 days ago; left 0 jobs" in done.stdout
    assert store.jobs.list().items == ()
    store.close()


def test_the_wrong_database_is_refused(tmp_path: Path, stored: str) -> None:
    database = {"COXSWAIN_DATABASE_URL": f"sqlite:///{tmp_path}/other.db"}
    result = run("store", "collect", "--data-dir", str(tmp_path), env=database)
    assert result.exit_code == 2
    assert "give the settings the server runs with" in result.stderr
