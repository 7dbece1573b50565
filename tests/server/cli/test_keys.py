"""`coxswain keys`: made, listed, revoked."""

from __future__ import annotations

import json
from pathlib import Path

from server.store import Store

from .test_command import run


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path))
    made = run("keys", "create", "--name", "ci", "--scope", "chat", "--scope", "inline", *data)
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    listed = run("keys", "list", *data).stdout
    assert secret.split("-")[3] not in listed
    record = json.loads(listed)
    assert (record["name"], record["scopes"]) == ("ci", ["chat", "inline"])
    assert run("keys", "revoke", record["id"], *data).exit_code == 0
    assert json.loads(run("keys", "list", *data).stdout)["revoked_at"]
    store = Store.open(tmp_path)
    try:
        events = [event.action for event in store.audit.list().items]
    finally:
        store.close()
    assert events == ["key.revoke", "key.create"]


def test_a_key_has_every_scope_but_restricted(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path))
    run("keys", "create", *data)
    assert json.loads(run("keys", "list", *data).stdout)["scopes"] == [
        *("admin", "chat", "inline", "read")
    ]
    again = run("keys", "create", "--only-first", *data)
    assert (again.exit_code, again.stdout) == (0, "")
    assert len(run("keys", "list", *data).stdout.splitlines()) == 1
