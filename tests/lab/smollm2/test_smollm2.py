"""The demo of SmolLM2: its judges, how a dose is chosen, and that what ships is what was chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lab.smollm2.concepts import CONCEPTS, TEST, VALIDATION, read_examples
from lab.smollm2.judge import JUDGES, repetition
from lab.smollm2.report import page
from lab.smollm2.search import Dose, choose
from lab.smollm2.trials import Figures
from server.models import SMOLLM2_DEMO_DIR
from server.registry.demo import import_demo
from server.resolver.library import load_direction_blob
from server.store import Store
from steering.documents import ProfileDocument
from steering.formats import dump_direction, load_direction
from steering.model_spec import ModelSpec
from tests.source_tree import ROOT

EFFECTS = json.loads((SMOLLM2_DEMO_DIR / "effects.json").read_text(encoding="utf-8"))
PROFILES = json.loads((SMOLLM2_DEMO_DIR / "profiles.json").read_text(encoding="utf-8"))
PLAIN = Figures(0.1, 10.0, None, 0.0, 20.0)
SPEC = ModelSpec(
    name="smollm2",
    family="llama",
    fingerprint=EFFECTS["model"]["fingerprint"],
    num_layers=30,
    hidden_size=576,
    num_heads=9,
    head_dim=64,
    unavailable_sites={},
    resid_norms={},
)


def dose(hits: float, perplexity: float = 10.0, strength: float = 1.0, **figures: Any) -> Dose:
    measured = replace(PLAIN, hits=hits, perplexity=perplexity, **figures)
    return Dose(range(3, 28), strength, measured)


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_knows_its_style_from_plain_answers(name: str) -> None:
    judge = JUDGES[name]
    own = sum(judge(example["answer"]) for example in read_examples(name))
    plain = sum(judge(example["answer"]) for example in read_examples("plain"))
    assert own >= 19
    assert plain <= 6
    assert not judge("")


def test_what_is_measured_on_is_not_what_was_fitted_on() -> None:
    fitted = {example["prompt"] for example in read_examples("plain")}
    assert not fitted & {*VALIDATION, *TEST}
    assert not set(VALIDATION) & set(TEST)
    for concept in CONCEPTS:
        assert {example["prompt"] for example in read_examples(concept.name)} == fitted


def test_repetition_counts_runs_of_three_words() -> None:
    assert repetition("so glad, so glad, so glad") == pytest.approx(0.5)
    assert repetition("one two three four") == 0
    assert repetition("short") == 0


def test_the_dose_with_most_hits_among_the_fluent_is_chosen() -> None:
    broken = dose(0.9, perplexity=20.1)
    looping = dose(0.8, repetition=0.11)
    good, better_kept = dose(0.5, perplexity=12.0), dose(0.5, perplexity=11.0)
    assert choose([dose(0.4), broken, looping, good, better_kept], PLAIN) is better_kept
    assert choose([broken, looping, dose(0.29)], PLAIN) is None
    rare = dose(0.9, perplexity=99.0, prompted_perplexity=14.0)
    assert choose([good, rare], PLAIN) is rare


def test_what_ships_is_what_was_chosen() -> None:
    chosen = {}
    for name, style in EFFECTS["styles"].items():
        plain, tried = Figures(**style["unsteered"]), []
        for row in style["doses"]:
            measured = {field: row[field] for field in style["unsteered"]}
            first, last = row["layers"]
            tried.append(Dose(range(first, last + 1), row["strength"], Figures(**measured)))
        best = choose(tried, plain)
        assert [d is best for d in tried] == [row["is_chosen"] for row in style["doses"]]
        if best is not None:
            chosen[name] = (list(best.layers), best.strength)
    shipped = {name: document["interventions"][0] for name, document in PROFILES.items()}
    assert chosen == {name: (i["layers"], i["strength"]) for name, i in shipped.items()}
    assert {"happy", "sad"} <= set(chosen)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_and_its_direction_are_as_they_are_read(name: str) -> None:
    profile = ProfileDocument.from_dict(PROFILES[name])
    [edit] = profile.interventions
    assert edit.scope.to_dict() == {"tokens": ["last_prompt", "generated"]}
    path = SMOLLM2_DEMO_DIR / "directions" / f"{name}.safetensors"
    metadata = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    direction = load_direction(path.read_bytes(), name, **metadata)
    assert dump_direction(direction) == path.read_bytes()
    assert direction.model_fingerprint == SPEC.fingerprint


def test_the_first_start_with_the_model_makes_them(store: Store) -> None:
    assert import_demo(SMOLLM2_DEMO_DIR, store, SPEC) == sorted(PROFILES)
    assert import_demo(SMOLLM2_DEMO_DIR, store, SPEC) == []


def test_the_page_says_what_was_measured() -> None:
    """`make demo` writes both."""
    assert (ROOT / "docs" / "demos.md").read_text(encoding="utf-8") == page(EFFECTS)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    opened = Store.open(tmp_path_factory.mktemp("store"), load=load_direction_blob)
    yield opened
    opened.close()
