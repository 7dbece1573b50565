"""What a fit reads of its examples while earlier layers are edited."""

from __future__ import annotations

import pytest
import torch

from server.engine.async_engine import AsyncEngine
from server.jobs.kinds.fit import FIT
from server.measure.examples.prompts import ReadPrompt
from server.measure.fitting.activations import read_prompts
from server.measure.instrument import Instrument
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention
from steering.errors import FitError
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import Site, SitePoint

from .fit_context import MemoryContext, texts

WIDTH = 256


def push(engine: AsyncEngine, tokens: str) -> SteeringPlan:
    direction = Direction(
        "push", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.ones(WIDTH)}
    )
    asked = {"operation": "add", "direction": "push", "scope": {"tokens": tokens}}
    return compile_plan([Steer(Intervention.from_dict(asked), direction)], [], engine.info().spec)


async def test_the_answer_that_is_averaged_is_not_prompt(embedded: AsyncEngine) -> None:
    """Edits of prompt tokens leave the answer's own activations there as they were."""
    point = SitePoint(2, Site.RESID_PRE)  # what the edit leaves, before anything attends to it
    ids = tuple(embedded.tokenizer.encode("How do I repair a bicycle? Use a new chain and oil."))
    prompts = [ReadPrompt(ids, (len(ids) - 5, len(ids)), "data.positive[0]")]
    instrument = Instrument(embedded)
    read = {}
    for tokens in ("", "prompt", "generated"):
        plan = push(embedded, tokens) if tokens else None
        found = await read_prompts(instrument, prompts, [point], is_mean=True, plan=plan)
        read[tokens] = found[2][0, 0]
    torch.testing.assert_close(read["prompt"], read[""], rtol=0, atol=1e-3)
    torch.testing.assert_close(read["generated"], read[""] + 1, rtol=0, atol=0.05)


def test_what_would_not_fit_in_memory_is_refused(
    embedded: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"positive": texts("restricted_direct", 20), "negative": texts("ordinary", 20)}
    request = {"name": "wall", "layers": [1, 2], "data": data}
    needed = 40 * 2 * WIDTH
    for most, is_refused in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr("server.measure.fitting.data.MAX_VALUES", most)
        context = MemoryContext(embedded)
        if is_refused:
            with pytest.raises(FitError, match="held in memory") as caught:
                FIT.parse(request, embedded, context.directions)
            assert caught.value.param == "data"
        else:
            FIT.parse(request, embedded, context.directions)
