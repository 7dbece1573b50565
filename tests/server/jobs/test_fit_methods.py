"""Fits by every method, of pairs and answers, layer after layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from server.engine.async_engine import AsyncEngine
from server.jobs.kinds import fit_run
from server.jobs.kinds.fit import FIT
from server.measure.sinks import Sinks
from steering.directions import Direction, DirectionKind
from steering.errors import FitError, IncompatibleOperationError
from steering.sites import Site

from .fit_context import MemoryContext, run_job, texts

POSITIVE = texts("restricted_direct", 32)
NEGATIVE = texts("ordinary", 32)


@pytest.fixture
def context(embedded: AsyncEngine) -> MemoryContext:
    return MemoryContext(embedded)


def body(**changes: Any) -> dict[str, Any]:
    data = {"positive": POSITIVE, "negative": NEGATIVE, "validation": 0.25}
    return {"name": "refusal", "data": data} | changes


async def test_a_map_is_chosen_by_what_answers_become(context: MemoryContext) -> None:
    data = body()["data"] | {"positive": NEGATIVE, "negative": POSITIVE}
    asked = body(
        data=data,
        method="gaussian_transport",
        layers={"select": [2, 4]},
        options={"scope": {"tokens": "last_prompt"}},
    )
    receipt = (await run_job(FIT, asked, context))["receipt"]
    (direction,) = context.saved
    assert direction.kind is DirectionKind.TRANSPORT
    assert receipt["selection"]["rule"] == "log_odds"
    best = max(receipt["candidates"], key=lambda c: c["log_odds"])
    assert direction.layers == (best["layer"],)


async def test_a_behaviour_can_be_made_to_fall_by_a_scan(context: MemoryContext) -> None:
    """Layer, rank and number of layers are chosen together, against the unedited model."""
    asked = body(
        data={"positive": NEGATIVE, "negative": POSITIVE, "validation": 0.25},
        method="gaussian_transport",
        layers={"select": [2, 3]},
        options={
            "selection": "log_odds_fall",
            "scan": {"rank": [1, 2], "num_layers": [1, 2]},
            "scope": {"tokens": "last_prompt"},
        },
    )
    receipt = (await run_job(FIT, asked, context))["receipt"]
    tried = [
        (c["layer"], c["options"]["rank"], c["options"]["num_layers"])
        for c in receipt["candidates"]
    ]
    assert sorted(tried) == [(2, 1, 1), (2, 1, 2), (2, 2, 1), (2, 2, 2), (3, 1, 1), (3, 2, 1)]
    (direction,) = context.saved
    chosen = min(receipt["candidates"], key=lambda c: c["log_odds"])
    assert receipt["selection"]["chosen"] == chosen | {
        name: None for name in receipt["selection"]["chosen"] if name not in chosen
    }
    assert chosen["log_odds"] < receipt["base"]["log_odds"] - 1.0
    assert receipt["base"]["log_odds"] > 0.0  # it refuses what is restricted
    first = chosen["layer"]
    assert direction.layers == tuple(range(first, first + chosen["options"]["num_layers"]))
    assert receipt["options"]["rank"] == chosen["options"]["rank"]
    assert receipt["options"]["scan"] == {"rank": [1, 2], "num_layers": [1, 2]}
    assert receipt["options"]["behaviour_tokens"] == context.engine.tokenizer.encode("I")
    assert receipt["sinks"] == {"positions": [], "norm_ratios": []}
    assert len([key for key in context.memory if key.startswith("scores ")]) == 6


async def test_a_map_that_is_worse_than_no_edit_is_not_chosen(context: MemoryContext) -> None:
    """The other way round the map makes refusals likelier, which is no way to make them fall."""
    asked = body(
        method="gaussian_transport",
        layers={"select": [3]},
        options={"selection": "log_odds_fall", "behaviour_tokens": ["I"]},
    )
    with pytest.raises(FitError, match="is not below the unedited model's") as caught:
        await run_job(FIT, asked, context)
    assert caught.value.param == "layers"
    assert not context.saved


async def test_edits_are_measured_without_attention_sinks(
    context: MemoryContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first_token(*_: object) -> Sinks:
        return Sinks((0,), (170.0,))

    monkeypatch.setattr(fit_run, "find_sinks", first_token)
    asked = body(layers=[3], options={"scope": {"tokens": "prompt"}})
    receipt = (await run_job(FIT, asked, context))["receipt"]
    assert receipt["scope"] == {"tokens": "prompt", "exclude": {"windows": [[0, 1]]}}
    assert receipt["options"]["scope"] == {"tokens": "prompt"}
    assert receipt["sinks"]["positions"] == [0]
    assert any("serve it with scope" in note for note in receipt["notes"])
    everywhere = body(layers=[3], options={"exclude_sinks": False})
    receipt = (await run_job(FIT, everywhere, context))["receipt"]
    assert (receipt["sinks"], receipt["scope"]) == (None, {"tokens": "all"})
    alone = body(layers=[3], options={"scope": {"windows": [[0, 1]]}})
    with pytest.raises(FitError, match="attention sinks") as caught:
        await run_job(FIT, alone, context)
    assert caught.value.param == "options.scope"


async def test_a_later_layer_is_refitted_with_the_earlier_one_active(embedded: AsyncEngine) -> None:
    """What is left to carry at the second layer is less than without the first."""
    data = body()["data"] | {"positive": NEGATIVE, "negative": POSITIVE}
    asked = body(data=data, method="gaussian_transport", layers=[2, 4])
    alone, refitted = MemoryContext(embedded), MemoryContext(embedded)
    independent = await run_job(FIT, asked, alone)
    await run_job(FIT, asked | {"options": {"sequential": True}}, refitted)
    first, second = (context.saved[0] for context in (alone, refitted))
    torch.testing.assert_close(
        first.tensors["shift.2"], second.tensors["shift.2"], rtol=0.02, atol=0.02
    )
    lengths = [float(direction.tensors["shift.4"].norm()) for direction in (first, second)]
    assert lengths[1] < 0.9 * lengths[0]
    assert any("more than once" in note for note in independent["receipt"]["notes"])


@pytest.mark.parametrize(
    ("method", "kind", "changes"),
    [
        ("mean_centring", DirectionKind.VECTOR, {"layers": [3]}),
        ("pca", DirectionKind.BASIS, {"layers": [3], "options": {"rank": 2}}),
        ("probe", DirectionKind.PROBE, {"layers": "select"}),
        ("leace", DirectionKind.TRANSPORT, {"layers": [3]}),
        ("linear_act", DirectionKind.DIAGONAL, {"layers": [3]}),
        ("null_space", DirectionKind.TRANSPORT, {"layers": [3]}),
        ("angular_plane", DirectionKind.PLANE, {"layers": "select"}),
        ("iti_heads", DirectionKind.VECTOR, {"layers": [2, 3]}),
    ],
)
async def test_every_method_is_a_job(
    context: MemoryContext, method: str, kind: DirectionKind, changes: dict[str, Any]
) -> None:
    receipt = (await run_job(FIT, body(method=method, **changes), context))["receipt"]
    (direction,) = context.saved
    assert direction.kind is kind
    assert receipt["method"] == method
    assert (receipt["damage"] is None) == (method == "probe")
    auc = [v["value"] for k, v in receipt["separation"].items() if k.startswith("auc")]
    assert len(auc) == len(direction.layers)
    assert max(auc) > 0.85


async def test_pairs_and_means_of_answers_make_a_direction(context: MemoryContext) -> None:
    asked = texts("ordinary", 24)
    pairs = [
        {
            side: [
                {"role": "user", "content": text},
                {"role": "assistant", "content": answer},
            ]
            for side, answer in (
                ("positive", f"Wonderful! Splendid news, number {n}."),
                ("negative", f"Sadly it is hopeless, number {n}."),
            )
        }
        for n, text in enumerate(asked)
    ]
    data = {"pairs": pairs, "token": "mean", "validation": 0.25}
    result = await run_job(
        FIT, body(name="tone", data=data, method="pair_pca", layers=[2]), context
    )
    assert result["receipt"]["data"]["token"] == "mean"
    assert result["receipt"]["separation"]["auc"]["value"] > 0.95


async def test_a_stored_vector_may_be_the_target(embedded: AsyncEngine) -> None:
    vector = torch.linspace(-1.0, 1.0, embedded.info().spec.hidden_size)
    target = Direction(
        "push", DirectionKind.VECTOR, Site.RESID_POST, (3,), {"vector": vector}, version=2
    )
    context = MemoryContext(embedded, stored={"push@2": target})
    asked = body(method="null_space", layers=[3], options={"target": "push@2"})
    receipt = (await run_job(FIT, asked, context))["receipt"]
    written = context.saved[0].tensors["map"][0]
    assert float(torch.cosine_similarity(written, vector, dim=0)) > 0.999
    assert receipt["options"]["target"] == "push@2"
    many = {f"vector.{layer}": vector for layer in (1, 2)}
    context.stored["push@2"] = Direction(
        "push", DirectionKind.VECTOR, Site.RESID_POST, (1, 2), many
    )
    with pytest.raises(IncompatibleOperationError) as caught:
        await run_job(FIT, asked, context)
    assert caught.value.param == "options.target"
