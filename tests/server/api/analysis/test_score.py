"""Scores of known text, against what transformers computes and what the distributions say."""

from __future__ import annotations

import random
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from transformers import AutoModelForCausalLM

from server.engine.async_engine import AsyncEngine
from server.models import EMBEDDED_MODEL

from .conftest import QUESTION, analyse

TEXT = "To repair a bicycle, first turn it upside down. Then take the wheel off."


@pytest.fixture(scope="module")
def reference() -> Any:
    path = EMBEDDED_MODEL
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).train(False)


def logprobs(reference: Any, ids: list[int], push: torch.Tensor | None = None) -> torch.Tensor:
    """[T, V] of the plain model, optionally with a vector added after the third block."""
    handle = None
    if push is not None:
        block = reference.model.layers[2]
        handle = block.register_forward_hook(lambda _, __, out: out + push)
    with torch.inference_mode():
        found = reference(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    if handle is not None:
        handle.remove()
    return torch.log_softmax(found.double(), dim=-1)


async def test_plain_scores_are_those_of_transformers(
    api: httpx.AsyncClient, model: AsyncEngine, reference: Any
) -> None:
    found = await analyse(api, "score", {"prompt": TEXT})
    ids = model.tokenizer.encode(TEXT)
    expected = logprobs(reference, ids)
    assert [token["id"] for token in found["tokens"]] == ids[1:]
    assert [token["position"] for token in found["tokens"]] == list(range(1, len(ids)))
    values = [expected[i, token].item() for i, token in enumerate(ids[1:])]
    np.testing.assert_allclose([t["logprob"] for t in found["tokens"]], values, atol=1e-3)
    assert found["logprob"] == pytest.approx(sum(values), abs=1e-2)
    assert found["logprob"] == found["unsteered_logprob"]
    assert found["mean_kl"] is None
    assert found["next_kl"] is None


async def test_steered_scores_and_divergences(
    api: httpx.AsyncClient, model: AsyncEngine, reference: Any
) -> None:
    """The whole text steered, recomputed with a plain hook and scipy's relative entropy."""
    body = {"prompt": TEXT, "steering": {"profile": "pushed"}}
    found = await analyse(api, "score", body)
    stored = (await api.get("/v1/steering/directions/push")).json()
    assert stored["reference"] == "push@1"
    push = 1.5 * torch.tensor(_push())
    ids = model.tokenizer.encode(TEXT)
    plain, steered = logprobs(reference, ids), logprobs(reference, ids, push)
    kl = rel_entr(plain.exp().numpy(), steered.exp().numpy()).sum(axis=1)
    got = [token["kl"] for token in found["tokens"]] + [found["next_kl"]]
    np.testing.assert_allclose(got, kl, rtol=1e-2, atol=1e-4)
    assert found["mean_kl"] == pytest.approx(kl.mean(), rel=1e-2)
    for index, token in enumerate(found["tokens"]):
        assert token["logprob"] == pytest.approx(steered[index, token["id"]].item(), abs=1e-2)
        assert token["unsteered_logprob"] == pytest.approx(
            plain[index, token["id"]].item(), abs=1e-3
        )


def _push() -> list[float]:
    draw = random.Random(5)
    return [draw.gauss(0, 0.1) for _ in range(256)]


async def test_a_continuation_is_generated_as_far_as_scopes_go(api: httpx.AsyncClient) -> None:
    """Steering generated tokens cannot change the first token's score, and does change others."""
    inline = {"operation": "add", "direction": "push", "strength": 3.0}
    generated = {"interventions": [{**inline, "scope": {"tokens": "generated"}}]}
    body = {"messages": QUESTION, "continuation": "To repair a bicycle, you", "steering": generated}
    found = await analyse(api, "score", body)
    first, *rest = found["tokens"]
    assert first["kl"] == pytest.approx(0.0, abs=1e-9)
    assert first["logprob"] == pytest.approx(first["unsteered_logprob"], abs=1e-6)
    assert all(token["kl"] > 1e-9 for token in rest)
    assert found["next_kl"] > 1e-9
    assert "".join(t["text"] for t in found["tokens"]) == "To repair a bicycle, you"


async def test_a_continuation_scores_as_the_end_of_the_whole(
    api: httpx.AsyncClient, model: AsyncEngine
) -> None:
    ids = model.tokenizer.encode(TEXT)
    whole = await analyse(api, "score", {"prompt": ids})
    part = await analyse(api, "score", {"prompt": ids[:7], "continuation": ids[7:]})
    np.testing.assert_allclose(
        [t["logprob"] for t in part["tokens"]],
        [t["logprob"] for t in whole["tokens"]][6:],
        atol=1e-4,
    )


async def test_regions_of_a_chat_can_be_steered(api: httpx.AsyncClient) -> None:
    inline = {"operation": "add", "direction": "push", "scope": {"regions": "answer"}}
    steering = {"interventions": [inline]}
    body = {"messages": QUESTION, "continuation": "To repair it", "steering": steering}
    found = await analyse(api, "score", body)
    assert found["tokens"][0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert found["next_kl"] > 0
    error = await analyse(api, "score", {"prompt": TEXT, "steering": steering}, 422)
    assert error["param"] == "steering.interventions[0].scope"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"continuation": ""}, 400, "continuation"),
        ({"continuation": [10**6]}, 400, "continuation"),
        ({"continuation": [5] * 2000}, 400, "continuation"),
        ({"messages": QUESTION}, 400, "messages"),
        ({"prompt": [5] * 2000}, 400, "prompt"),
        (
            {
                "steering": {
                    "interventions": [
                        {
                            "operation": "add",
                            "direction": "push",
                            "scope": {"tokens": "generated"},
                        }
                    ]
                }
            },
            422,
            "steering.interventions[0].scope",
        ),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named(
    api: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str
) -> None:
    error = await analyse(api, "score", {"prompt": TEXT, **fields}, status)
    assert error["param"] == param
