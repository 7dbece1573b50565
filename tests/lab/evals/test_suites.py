"""A suite end to end on the embedded model, by the command that people use."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from coxswain_client import Coxswain
from coxswain_client.cli import app
from coxswain_evals import Results
from lab.evals.write_data import FOLDER

SUITE = {
    "name": "two",
    "max_tokens": 40,
    "datasets": {
        "framed": {"file": str(FOLDER / "data" / "restricted_framed.jsonl")},
        "neutral": {"file": str(FOLDER / "data" / "neutral.jsonl"), "kind": "text"},
    },
    "treatments": [
        {"name": "unlocked", "profile": "unlocked"},
        {"name": "cheerful", "profile": "cheerful", "strengths": [1.0]},
    ],
    "measures": [
        {"name": "refusal", "kind": "rate", "dataset": "framed"},
        {"name": "perplexity", "kind": "perplexity", "dataset": "neutral"},
        {"name": "kl", "kind": "kl", "dataset": "framed"},
    ],
}


@pytest.fixture(scope="module")
def results(museum: str, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "two.yaml").write_text(json.dumps(SUITE))
    command = ["--base-url", museum, "eval", "run", str(folder / "two.yaml")]
    with Coxswain(museum) as client:
        done = CliRunner().invoke(
            app, [*command, "--out", str(folder / "run"), "--limit", "6"], obj=client
        )
    assert done.exit_code == 0, done.output
    assert (folder / "run" / "report.md").exists()
    assert (folder / "run" / "dose-cheerful.svg").exists()
    return Results.read(folder / "run")


def value(results: Results, measure: str, arm: str) -> float:
    found = results.measured[measure, arm].estimate.value
    assert found is not None
    return found


def test_treatments_do_what_random_directions_do_not(results: Results) -> None:
    refused = {
        arm.name: value(results, "refusal", arm.name) for arm in results.arms if arm.steering
    }
    assert refused["no-op"] > 0
    assert refused["unlocked x 1"] == 0
    assert refused["random 0 of unlocked x 1"] == refused["no-op"]


def test_plain_addition_has_the_dose_that_the_ablation_was_measured_at(results: Results) -> None:
    arms = {arm.name: arm for arm in results.arms}
    treated, added = arms["unlocked x 1"], arms["addition of unlocked x 1"]
    assert added.dose == pytest.approx(treated.dose, rel=1e-4)
    assert "measured" in added.note
    [item] = added.steering["interventions"]
    assert item["strength"] < 0  # refusal is taken away


def test_scored_text_is_steered_as_generated(results: Results) -> None:
    """`cheerful` acts on generated tokens alone."""
    [row, *_] = results.rows["cheerful x 1", "neutral"].of_task["scores"]
    assert row["steered_tokens"] == {"prompt": 0, "generated": len(row["token_logprobs"])}
    assert value(results, "perplexity", "cheerful x 1") > value(results, "perplexity", "no-op")


def test_divergence_is_from_the_unsteered_model(results: Results) -> None:
    assert value(results, "kl", "no-op") == 0
    assert value(results, "kl", "cheerful x 1") > 10 * value(
        results, "kl", "random 0 of unlocked x 1"
    )
    assert value(results, "kl", "random 0 of unlocked x 1") > 0
