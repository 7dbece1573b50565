"""lm-eval's own client against the server: scoring and generation as a harness runs them."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Served

# Packages that lm-eval loads deprecate things of each other; that is not ours to hold to account.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(served: Served) -> Any:
    completions = pytest.importorskip("lm_eval.models.openai_completions")
    return completions.LocalCompletionsAPI(
        base_url=f"{served.url}/v1/completions",
        model="echo",
        tokenizer_backend="remote",
        batch_size=2,
        max_length=512,
        num_concurrent=1,
    )


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, item, index) for index, item in enumerate(arguments)]


def test_loglikelihoods_are_those_of_the_continuations(model: Any) -> None:
    # The echo engine gives -0.125 to even bytes, its greedy choice, and -7.5 to odd ones.
    pairs = [("the sky is", " blue"), ("a", "bdf"), ("question", "xy")]
    expected = [
        sum(-0.125 if byte % 2 == 0 else -7.5 for byte in text.encode()) for _, text in pairs
    ]
    scores = model.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
    assert [score for score, _ in scores] == pytest.approx(expected)
    assert [is_greedy for _, is_greedy in scores] == [False, True, False]


def test_generation_stops_where_it_is_told(model: Any) -> None:
    arguments = {"until": ["\n"], "max_gen_toks": 32}
    prompts = [("one\ntwo", arguments), ("three\nfour", arguments)]
    texts = model.generate_until(requests("generate_until", *prompts), disable_tqdm=True)
    assert texts == ["one", "three"]
