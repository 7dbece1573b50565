"""The embedded model, baked from the command line, answers as under its profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from server.bake.source import profile_source
from server.cli import app
from server.engine.engine import EngineConfig
from server.engine.loading import load
from server.resolver.library import load_direction_blob
from server.store import SYSTEM, Store
from steering.documents import ProfileDocument
from steering.formats import dump_direction, load_direction
from steering.plan import compile_plan
from tests.server.engine.harness import EngineHarness

_EMBEDDED = Path(__file__).parents[3] / "server" / "embedded"
CHECKPOINT = _EMBEDDED / "checkpoint"
REFUSAL = _EMBEDDED / "demo" / "directions" / "refusal.safetensors"
QUESTIONS = ("What is a good way to plant tulips?", "How do I disable the alarm at the museum?")
EVERYWHERE = {"from": 0.0, "to": 1.0}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bake", "--model", str(CHECKPOINT), *arguments])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    store = Store.open(path)
    direction = load_direction(REFUSAL.read_bytes(), "refusal", requires=["restricted"])
    store.directions.put(direction, dump_direction(direction), by=SYSTEM)
    uses = [
        {"operation": "ablate", "direction": "refusal", "site": site, "layers": EVERYWHERE}
        for site in ("attn_out", "mlp_out")
    ]
    document = {"interventions": uses, "monitors": [{"direction": "refusal"}]}
    store.profiles.save(
        ProfileDocument.from_dict(document).named("levelled"), by=SYSTEM, publish=True
    )
    store.close()
    return path


def _answers(model: Path, profile: str | None, data_dir: Path) -> list[str]:
    config = EngineConfig(
        str(model),
        device="cpu",
        dtype="float32",
        num_threads=1,
        max_model_len=128,
        max_num_seqs=2,
        seed=0,
    )
    harness = EngineHarness(load(config))
    tokenizer, plan = harness.loaded.tokenizer, None
    if profile is not None:
        store = Store.open(data_dir, load=load_direction_blob)
        plan = compile_plan(profile_source(profile, store).steers, [], harness.loaded.spec)
        store.close()
    chats = [tokenizer.render_chat([{"role": "user", "content": text}]) for text in QUESTIONS]
    requests = [
        harness.request(chat.token_ids, plan, max_tokens=24, ignore_eos=False) for chat in chats
    ]
    return [sink.text for sink in harness.run(*requests)]


def test_the_baked_model_answers_as_the_profile_does(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(
        *("--profile", "levelled", "--data-dir", str(data_dir)),
        *("--dtype", "float32", "--out", str(out)),
    )
    assert done.exit_code == 0, done.output
    assert "total" in done.stdout
    assert "1 monitors are not part of a checkpoint" in done.stderr
    assert "restricted" in done.stderr
    plain = _answers(CHECKPOINT, None, data_dir)
    steered = _answers(CHECKPOINT, "levelled", data_dir)
    assert _answers(out, None, data_dir) == steered
    assert steered != plain
    said = json.loads((out / "coxswain_bake.json").read_text())
    assert (said["source"]["profile"], said["requires"]) == ("levelled@1", ["restricted"])


def test_a_direction_is_reported_before_it_is_baked(tmp_path: Path) -> None:
    asked = ("--direction", str(REFUSAL), "--operation", "rank_one", "--layers", "2-3")
    report = run(*asked, "--dry-run")
    assert report.exit_code == 0, report.output
    header, *rows = report.stdout.splitlines()
    assert header.split()[:3] == ["layer", "site", "E[mean(Wx)]"]
    assert [row.split()[:2] for row in rows] == [
        [layer, site] for layer in "23" for site in ("attn_out", "mlp_out")
    ]
    assert all(row.split()[2][0] in "+-" for row in rows)
    out = tmp_path / "out"
    done = run(*asked, "--relative", "0.01", "--out", str(out))
    assert done.exit_code == 0, done.output
    matrices: list[dict[str, Any]] = json.loads((out / "coxswain_bake.json").read_text())[
        "matrices"
    ]
    assert [row["relative_update"] for row in matrices] == [pytest.approx(0.01)] * 4
    assert all(0 < row["retained"] < 1.2 for row in matrices)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--dry-run",), "either a profile or a direction"),
        (("--direction", str(REFUSAL), "--dry-run"), "has no operation"),
        (("--direction", str(REFUSAL), "--operation", "erase", "--dry-run"), "rank_one_calibrated"),
        (("--direction", str(REFUSAL), "--operation", "ablate"), "--dry-run"),
        (
            ("--direction", "nothing.safetensors", "--operation", "ablate", "--dry-run"),
            "cannot be read",
        ),
        (
            ("--direction", str(REFUSAL), "--operation", "ablate", "--layers", "9", "--dry-run"),
            "layers 0 to 5",
        ),
        (
            ("--direction", str(REFUSAL), "--operation", "ablate", "--embeddings", "--dry-run"),
            "--untie",
        ),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: tuple[str, ...], expected: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "out")
    done = run(
        *("--direction", str(REFUSAL), "--operation", "ablate", "--alpha", "1", "--out", out)
    )
    assert done.exit_code == 2
    assert "File exists" in done.stderr


def test_an_unknown_profile_is_told(data_dir: Path) -> None:
    result = run("--profile", "nobody", "--data-dir", str(data_dir), "--dry-run")
    assert result.exit_code == 2
    assert "nobody" in result.stderr
