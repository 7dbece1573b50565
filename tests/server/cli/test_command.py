"""The command line, without a model."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli import app


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env=env)


def test_it_says_its_version() -> None:
    assert run("version").stdout.strip() == version("coxswain")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("keys", "create", "--scope", "root"), "no such scope: root"),
        (("keys", "create", "--name", " "), "name is empty"),
        (("keys", "revoke", "nope"), "there is no key 'nope'"),
        (("serve", "--port", "70000"), "COXSWAIN_PORT"),
        (("serve", "--dtype", "int8"), "COXSWAIN_DTYPE"),
        (("serve", "--host", "0.0.0.0"), "coxswain keys create"),
    ],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    result = run(*arguments, "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_the_environment_is_read_and_options_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COXSWAIN_DATA_DIR", str(tmp_path / "environment"))
    run("keys", "create")
    assert (tmp_path / "environment" / "coxswain.db").exists()
    run("keys", "create", "--data-dir", str(tmp_path / "option"))
    assert (tmp_path / "option" / "coxswain.db").exists()
