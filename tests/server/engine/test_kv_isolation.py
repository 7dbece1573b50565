"""Invariant 5: keys and values computed under one steering are never reused under another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from server.engine.loading import LoadedModel
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import Site
from tests.models import tiny_model

from .harness import EngineHarness, bare_logits, load_tiny

PROMPT = list(range(40, 61))  # five full blocks and a token
FAMILIES = ["llama", "qwen3", "gemma3", "gpt2"]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


def plan_with(loaded: LoadedModel, **fields: Any) -> SteeringPlan:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1)) * 3
    direction = Direction("push", DirectionKind.VECTOR, Site.RESID_POST, (0,), {"vector": vector})
    document = {"operation": "add", "direction": "push", **fields}
    return compile_plan([Steer(Intervention.from_dict(document), direction)], [], loaded.spec)


def first_logits(
    harness: EngineHarness, plan: SteeringPlan | None, salt: bytes = b""
) -> tuple[Tensor, int]:
    """Logits of the first token after PROMPT, and how many prompt tokens came from the cache."""
    request = harness.request(PROMPT, plan, max_tokens=1)
    if salt:
        request = type(request)(
            request.request_id, request.prompt_token_ids, request.sampling, plan, cache_salt=salt
        )
    sink = harness.run(request)[0]
    return harness.logits[request.request_id][0], sink.outputs[-1].num_cached_tokens


def test_plain_after_steered_is_plain(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded)
    steered, _ = first_logits(harness, plan_with(loaded))
    plain, num_cached = first_logits(harness, None)
    bare = bare_logits(tiny_model(loaded.layout.family.removesuffix("_text")), PROMPT)[-1]
    assert num_cached == 0
    torch.testing.assert_close(plain, bare, rtol=0, atol=1e-4 * float(bare.abs().max()))
    assert float((steered - bare).abs().max()) > 1e-2


def test_equal_steering_shares_and_plain_prefixes_share(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded)
    for plan in (None, plan_with(loaded)):
        first, _ = first_logits(harness, plan)
        again, num_cached = first_logits(harness, plan)
        assert num_cached == 20
        torch.testing.assert_close(first, again, rtol=0, atol=1e-4)


def test_a_scope_that_spares_the_prefix_shares_it_with_plain_requests(
    loaded: LoadedModel,
) -> None:
    harness = EngineHarness(loaded)
    first_logits(harness, None)
    _, num_cached = first_logits(harness, plan_with(loaded, scope={"tokens": "last_prompt"}))
    assert num_cached == 20


def test_strength_and_position_are_part_of_what_is_shared(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded)
    first_logits(harness, plan_with(loaded))
    for other in ({"strength": 0.5}, {"scope": {"windows": [[0, 3]]}}, {"layers": [1]}):
        assert first_logits(harness, plan_with(loaded, **other))[1] == 0


def test_generated_tokens_become_prompt_under_their_own_steering(loaded: LoadedModel) -> None:
    """The next turn reuses steered answers only where its own scope would steer them alike."""
    harness = EngineHarness(loaded)
    everywhere = plan_with(loaded)
    answer = harness.run(harness.request(PROMPT, everywhere, max_tokens=8))[0].token_ids
    turn = [*PROMPT, *answer, 7, 8]
    for plan, expected in ((everywhere, 28), (None, 0)):
        request = harness.request(turn, plan, max_tokens=1)
        sink = harness.run(request)[0]
        assert sink.outputs[-1].num_cached_tokens == expected


def test_salts_keep_tenants_apart(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded)
    assert first_logits(harness, None, b"one")[1] == 0
    assert first_logits(harness, None, b"two")[1] == 0
    assert first_logits(harness, None, b"one")[1] == 20


def test_control_without_the_digest_the_cache_leaks(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the tests above can fail: without digests, plain requests get steered keys."""
    monkeypatch.setattr(SteeringPlan, "block_digest", lambda *_: b"")
    harness = EngineHarness(loaded)
    first_logits(harness, plan_with(loaded))
    plain, num_cached = first_logits(harness, None)
    bare = bare_logits(tiny_model(loaded.layout.family.removesuffix("_text")), PROMPT)[-1]
    assert num_cached == 20
    assert float((plain - bare).abs().max()) > 1e-2


def exploding_plan(loaded: LoadedModel) -> SteeringPlan:
    """Each tensor is within bounds; four layers in a row overflow float32."""
    tensors = {}
    for layer in range(4):
        tensors |= {
            f"basis.{layer}": torch.eye(32) * 1e5,
            f"offset.{layer}": torch.zeros(32),
            f"map.{layer}": torch.eye(32) * 1e5,
            f"shift.{layer}": torch.zeros(32),
        }
    kind, layers = DirectionKind.TRANSPORT, (0, 1, 2, 3)
    direction = Direction("explode", kind, Site.RESID_POST, layers, tensors)
    document = {"operation": "transport", "direction": "explode"}
    return compile_plan([Steer(Intervention.from_dict(document), direction)], [], loaded.spec)


def test_a_failed_request_leaves_nothing_to_share(loaded: LoadedModel) -> None:
    """F6: the row fails alone, and neither its blocks nor their stale content reach others."""
    harness = EngineHarness(loaded)
    failing = harness.request(PROMPT, exploding_plan(loaded), max_tokens=2)
    beside = harness.request(PROMPT, None, max_tokens=4)
    failed, plain = harness.run(failing, beside)
    assert [error.code for error in failed.errors] == ["engine_nonfinite"]
    bare = bare_logits(tiny_model(loaded.layout.family.removesuffix("_text")), PROMPT)[-1]
    got = harness.logits[beside.request_id][0]
    torch.testing.assert_close(got, bare, rtol=0, atol=1e-4 * float(bare.abs().max()))
    assert len(plain.token_ids) == 4
    again = harness.run(harness.request(PROMPT, exploding_plan(loaded), max_tokens=2))[0]
    assert again.errors
    for _ in range(3):  # blocks of the failed request are used again
        long = harness.run(harness.request(list(range(60, 100)), None, max_tokens=4))[0]
        assert len(long.token_ids) == 4
