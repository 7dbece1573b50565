"""lm-eval, unmodified: `lab/evals/lm_eval`, unsteered and steered by a model's name."""

from __future__ import annotations

from typing import Any

import pytest

from server.models import EMBEDDED_MODEL
from tests.source_tree import ROOT

# Packages that lm-eval loads deprecate things of each other; that is not ours to hold to account.
pytestmark = pytest.mark.filterwarnings("ignore")

LIMIT = 6
TURN = {"X-Steering-Prompt-Tokens": "assistant-turn"}


@pytest.fixture(scope="module")
def harness(museum: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    lm_eval = pytest.importorskip("lm_eval")
    import datasets
    from lm_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        cache = tmp_path_factory.mktemp("datasets")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        manager = TaskManager(
            include_path=str(ROOT / "lab" / "evals" / "lm_eval"), include_defaults=False
        )

        def evaluate(model: str, task: str, headers: dict[str, str] | None = None) -> Any:
            return lm_eval.simple_evaluate(
                model="local-completions",
                model_args={
                    "base_url": f"{museum}/v1/completions",
                    "model": model,
                    "tokenizer": str(EMBEDDED_MODEL),
                    "tokenizer_backend": "huggingface",
                    "max_length": 1024,
                    "max_retries": 1,
                    "header": headers,
                },
                tasks=[task],
                task_manager=manager,
                limit=LIMIT,
                apply_chat_template=True,
                bootstrap_iters=0,
                log_samples=True,
            )

        yield evaluate


def loglikelihoods(result: Any) -> list[list[float]]:
    return [[r[0][0] for r in sample["resps"]] for sample in result["samples"]["museum_choice"]]


def test_choices_are_scored_and_the_model_knows_them(harness: Any) -> None:
    base = harness("coxswain-chat", "museum_choice")
    assert base["results"]["museum_choice"]["acc,none"] >= 0.9
    again = harness("coxswain-chat", "museum_choice", TURN)
    assert loglikelihoods(again) == loglikelihoods(base)


def test_a_scored_continuation_is_generated_where_the_header_says_so(harness: Any) -> None:
    """`cheerful` acts on generated tokens: without the header there are none to act on."""
    base = loglikelihoods(harness("coxswain-chat", "museum_choice"))
    steered = loglikelihoods(harness("coxswain-chat:cheerful", "museum_choice", TURN))
    changed = [
        a != b
        for one, other in zip(base, steered, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    assert all(changed)
    requests = pytest.importorskip("requests")
    with pytest.raises(requests.HTTPError, match="400"):
        harness("coxswain-chat:cheerful", "museum_choice")


def test_answers_are_generated_steered_or_not(harness: Any) -> None:
    base = harness("coxswain-chat", "museum_answer")
    steered = harness("coxswain-chat:cheerful", "museum_answer", TURN)
    assert base["results"]["museum_answer"]["exact_match,named-word"] >= 0.9
    said = [[s["resps"][0][0] for s in r["samples"]["museum_answer"]] for r in (base, steered)]
    assert said[0] != said[1]
    plain = harness("coxswain-chat:cheerful", "museum_answer")
    assert [s["resps"][0][0] for s in plain["samples"]["museum_answer"]] == said[1]
