"""Heads of the embedded model against a probe at the cliff, checked by what captures see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from server.engine.async_engine import AsyncEngine
from server.engine.request import CaptureRequest
from server.jobs.kinds.cliff_probe import CLIFF_PROBE
from server.jobs.kinds.heads import HEADS
from server.measure.examples.example import Example
from server.measure.head_scores import scaled_plan
from server.measure.probe import plan_probe
from server.measure.rollout import read_rollout
from steering.analysis import Head
from steering.directions import Direction, DirectionKind
from steering.documents import Monitor
from steering.errors import InvalidFieldError, SiteUnavailableError, SteeringError
from steering.sites import Site, SitePoint
from tests.server.jobs.fit_context import MemoryContext, run_job

from .conftest import Thoughts

FINAL = SitePoint(5, Site.FINAL)
MEASURED = [SitePoint(layer, Site.ATTN_OUT) for layer in range(6)]


def probe_of(width: int, site: Site = Site.FINAL, layer: int = 5, seed: int = 0) -> Direction:
    weight = torch.randn(width, generator=torch.Generator().manual_seed(seed)) / 16
    tensors = {"weight": weight, "bias": torch.tensor([0.1])}
    return Direction("probe", DirectionKind.PROBE, site, (layer,), tensors, version=1)


@pytest.fixture
def context(model: AsyncEngine) -> MemoryContext:
    return MemoryContext(model, stored={"probe@1": probe_of(256)})


@pytest.fixture(scope="module")
def chats(framed: Thoughts) -> list[Any]:
    return framed.complied[:5]


async def ranked(context: MemoryContext, chats: list[Any], **fields: Any) -> dict[str, Any]:
    request = {"prompts": chats, "probe": "probe@1", "check": False, **fields}
    return dict(await run_job(HEADS, request, context))


def endings(model: AsyncEngine, chats: list[Any]) -> tuple[tuple[int, ...], ...]:
    examples = [Example.parse(chat, "c") for chat in chats]
    return tuple(read_rollout(model.tokenizer, each, 1024).token_ids for each in examples)


def table(found: dict[str, Any], key: str) -> np.ndarray[Any, Any]:
    values = np.full((6, 8), np.nan)
    for row in found["heads"]:
        values[row["layer"], row["head"]] = row[key]
    return values


async def test_shares_add_up_to_what_attention_wrote(
    context: MemoryContext, model: AsyncEngine, chats: list[Any]
) -> None:
    found = await ranked(context, chats)
    asked = CaptureRequest("c", endings(model, chats), tuple(MEASURED))
    read = (await model.capture(asked)).pooled
    weight = context.stored["probe@1"].at(5)["weight"]
    unit = (weight / weight.norm()).double()
    expected = [float((read[point].double() @ unit).mean()) for point in MEASURED]
    np.testing.assert_allclose(table(found, "direct").sum(axis=1), expected, atol=1e-4)


async def test_folded_shares_and_everything_else_add_up_to_the_final_score(
    context: MemoryContext, model: AsyncEngine, chats: list[Any]
) -> None:
    """The embedding, all heads and all MLPs, each through the final norm, are w . final / |w|."""
    found = await ranked(context, chats)
    mlps = [SitePoint(layer, Site.MLP_OUT) for layer in range(6)]
    first, last = SitePoint(0, Site.RESID_PRE), SitePoint(5, Site.RESID_POST)
    asked = CaptureRequest("c", endings(model, chats), (*mlps, first, last, FINAL))
    read = {point: rows.double() for point, rows in (await model.capture(asked)).pooled.items()}
    weight = context.stored["probe@1"].at(5)["weight"].double()
    reader = model.info().attention
    assert reader is not None
    gain = torch.from_numpy(reader.final_norm.gain)
    unit = weight / weight.norm()
    scale = read[last].square().mean(dim=1).sqrt()
    others = read[first] + sum(read[point] for point in mlps)
    rest = (others @ (gain * unit) / scale).mean()
    total = table(found, "folded").sum() + float(rest)
    assert total == pytest.approx(float((read[FINAL] @ unit).mean()), abs=1e-3)


async def test_ranking_is_ascending_and_folded_after_the_norm(
    context: MemoryContext, chats: list[Any]
) -> None:
    found = await ranked(context, chats, percent=10)
    scores = [row["score"] for row in found["heads"]]
    assert scores == sorted(scores)
    assert [row["score"] for row in found["heads"]] == [row["folded"] for row in found["heads"]]
    first = [[row["layer"], row["head"]] for row in found["heads"][:5]]
    assert found["selected"] == first
    assert len(found["random"]) == 5
    assert not {tuple(h) for h in found["random"]} & {tuple(h) for h in first}
    direct = await ranked(context, chats, fold=False)
    assert [row["score"] for row in direct["heads"]] == sorted(
        row["direct"] for row in found["heads"]
    )


async def test_the_causal_score_is_that_of_a_run_with_the_head_scaled(
    context: MemoryContext, model: AsyncEngine, chats: list[Any]
) -> None:
    found = await ranked(context, chats, method="causal", factor=0.25)
    scores = [row["score"] for row in found["heads"]]
    assert scores == sorted(scores, reverse=True)
    direction = context.stored["probe@1"]
    probe = plan_probe(Monitor.from_dict({"direction": "probe"}), direction, context.spec)
    weight, bias = direction.at(5)["weight"], direction.at(5)["bias"]
    for head in (Head(0, 3), Head(4, 1)):
        plan = replace(scaled_plan([head], 0.25, probe, context.spec), monitors=())
        asked = CaptureRequest("c", endings(model, chats), (FINAL,), plan=plan)
        logits = (await model.capture(asked)).pooled[FINAL] @ weight + bias
        expected = float(expit(logits.double().numpy()).mean())
        assert table(found, "score")[head] == pytest.approx(expected, abs=1e-5)
    assert context.reports[-1] == (1.0, "scaled 48 of 48 heads")


async def test_a_probe_in_the_middle_sees_only_the_layers_below(
    context: MemoryContext, chats: list[Any]
) -> None:
    for site, layers in ((Site.RESID_PRE, 2), (Site.RESID_POST, 3)):
        context.stored["probe@1"] = probe_of(256, site, 2)
        found = await ranked(context, chats[:1])
        assert {row["layer"] for row in found["heads"]} == set(range(layers))
        assert all(row["folded"] is None for row in found["heads"])


async def test_without_suppressing_heads_the_refusal_score_is_higher(
    model: AsyncEngine, probe_data: dict[str, Any], framed: Thoughts
) -> None:
    """Of the probe trained at the cliff; a random control of the same size does not do it."""
    context = MemoryContext(model)
    await run_job(CLIFF_PROBE, {"name": "probe", "data": probe_data}, context)
    context.stored["probe@1"] = context.saved.pop()
    found = await ranked(context, framed.complied, percent=10, check=True, profile="cut")
    levels = found["probability"]
    assert levels["selected"] > levels["base"] + 0.1
    assert levels["selected"] > levels["random"] + 0.1
    assert found["direction"] == "cut@1"
    assert found["profile"] == "cut@1"
    [(name, draft)] = context.drafts
    assert name == "cut"
    assert draft["interventions"] == [{"operation": "scale_heads", "direction": "cut@1"}]
    [saved] = context.saved
    assert saved.provenance["heads"] == found["selected"]
    for layer, head in found["selected"]:
        assert float(saved.at(layer)["scale"][head]) == 0.0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": [7]}, "prompts[0]"),
        ({"method": "guess"}, "method"),
        ({"percent": 0}, "percent"),
        ({"percent": 101}, "percent"),
        ({"gamma": -1}, "gamma"),
        ({"factor": 2}, "factor"),
        ({"fold": "yes"}, "fold"),
        ({"fold": True, "method": "causal"}, "fold"),
        ({"profile": 3}, "profile"),
        ({"extra": 1}, "extra"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
async def test_a_wrong_request_is_named(
    context: MemoryContext, chats: list[Any], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(SteeringError) as caught:
        await ranked(context, chats, **fields)
    assert caught.value.param == param


async def test_a_probe_off_the_residual_stream_is_for_the_causal_method(
    context: MemoryContext, chats: list[Any]
) -> None:
    context.stored["probe@1"] = probe_of(256, Site.MLP_OUT, 3)
    with pytest.raises(InvalidFieldError, match="method 'causal'") as caught:
        await ranked(context, chats)
    assert caught.value.param == "probe"
    found = await ranked(context, chats[:1], method="causal")
    assert len(found["heads"]) == 4 * 8


async def test_a_probe_before_all_heads_is_refused(
    context: MemoryContext, chats: list[Any]
) -> None:
    context.stored["probe@1"] = probe_of(256, Site.RESID_PRE, 0)
    with pytest.raises(InvalidFieldError, match="no attention head acts on"):
        await ranked(context, chats)


async def test_an_engine_that_keeps_its_weights_offers_the_causal_method(
    context: MemoryContext, chats: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = replace(context.engine.info(), attention=None)
    monkeypatch.setattr(context.engine, "_info", closed)
    with pytest.raises(SiteUnavailableError, match="method 'causal'"):
        await ranked(context, chats)
