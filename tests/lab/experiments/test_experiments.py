"""A tiny version of every experiment, on the shipped checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.experiments.__main__ import EXPERIMENTS, main
from lab.experiments.observation import KL, PERPLEXITY
from lab.experiments.page.page import PAGE, render
from lab.experiments.page.results import load, path_of
from lab.experiments.subject import Sizes

TINY = Sizes(fit=8, validation=2, test=3, texts=3, draws=1, layers=(3, 4), settings=1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiments")
    main(["--out", str(folder)], TINY)
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, dict[str, Any]]:
    return {name: json.loads(path_of(out, name, 0).read_text()) for name in EXPERIMENTS}


def row(result: dict[str, Any], method: str) -> dict[str, Any]:
    return next(row["test"] for row in result["rows"] if row["method"] == method)


def test_a_result_says_of_what_it_is(results: dict[str, dict[str, Any]]) -> None:
    for result in results.values():
        assert result["training_seed"] == 0
        assert result["sizes"]["test"] == TINY.test
        assert len(result["model_fingerprint"]) > 8


@pytest.mark.parametrize(("name", "plain"), [("rosi", "base"), ("transport", "no-op")])
def test_the_plain_row_is_the_unsteered_model(
    results: dict[str, dict[str, Any]], name: str, plain: str
) -> None:
    found = row(results[name], plain)
    assert found["refusal on restricted_direct prompts"]["value"] == 1.0
    assert found[KL]["value"] == 0.0
    assert found[KL]["n"] == TINY.texts
    assert 1.0 < found[PERPLEXITY]["value"] < 3.0


def test_every_variant_of_the_safety_injection_has_its_row(
    results: dict[str, dict[str, Any]],
) -> None:
    rows = {found["method"]: found for found in results["rosi"]["rows"]}
    published = rows["ROSI as published"]
    assert published["settings"]["alpha"] > 0
    assert published["num_tried"] == len(TINY.layers or ())
    assert rows["ROSI with negative alpha"]["settings"]["alpha"] < 0
    assert {
        "base",
        "sign-calibrated ROSI",
        "amplifying",
        "ROSI, transient system prompt",
        "careful difference added",
        "plain addition, as long as amplifying",
        "random addition, as long as amplifying",
    } <= set(rows)
    assert len(results["rosi"]["write_means"]) == 12
    assert rows["amplifying"]["test"][KL]["value"] > 0


def test_ablating_refusal_answers_and_ablating_something_else_does_not(
    results: dict[str, dict[str, Any]],
) -> None:
    effect = "topical on restricted_direct prompts"
    assert row(results["transport"], "directional ablation (Arditi)")[effect]["value"] == 1.0
    assert row(results["transport"], "random direction ablated (Arditi)")[effect]["value"] == 0.0
    methods = {found["method"] for found in results["transport"]["rows"]}
    for place in ("middle layer", "two middle layers", "all layers"):
        assert f"Gaussian OT, {place}, last prompt token" in methods


def test_heads_and_judge_are_compared_with_random_ones(results: dict[str, dict[str, Any]]) -> None:
    rankings = {found["ranking"] for found in results["cliff"]["heads"]["rows"]}
    assert rankings == {"none", "attribution", "folded attribution", "causal", "random"}
    assert results["cliff"]["heads"]["counts"] == {"1.5": 1}
    assert all("random" in p for found in results["cliff"]["judge"] for p in found["picked"])
    direct = results["cliff"]["groups"]["published"]["direct, refused"]
    assert direct["n"] == TINY.test
    assert direct["final"]["value"] > 0.9


def test_a_tone_s_system_prompt_is_in_the_tone(results: dict[str, dict[str, Any]]) -> None:
    for axis in ("cheerful", "formal"):
        own = {"rows": [r for r in results["styles"]["rows"] if r["axis"] == axis]}
        tone = f"{axis} on ordinary prompts"
        assert row(own, "none")[tone]["value"] == 0.0
        assert row(own, "system prompt")[tone]["value"] == 1.0


def test_the_page_is_made_of_the_results(out: Path, results: dict[str, dict[str, Any]]) -> None:
    rendered = render(load(out))
    assert (out / PAGE).exists()
    for name in ("rosi", "transport"):
        for found in results[name]["rows"]:
            assert f"| {found['method']} |" in rendered[PAGE]
    assert all(text.startswith("<?xml") for path, text in rendered.items() if path.endswith("svg"))


def test_a_run_repeats_byte_for_byte(out: Path, tmp_path: Path) -> None:
    main(["styles", "--out", str(tmp_path)], TINY)
    assert path_of(tmp_path, "styles", 0).read_bytes() == path_of(out, "styles", 0).read_bytes()
