"""Scores of attention heads against a probe, measured on the served model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.engine.engine import Engine
from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from steering.analysis import Head, attribute_heads, heads_direction, sigmoid
from steering.documents import Intervention
from steering.errors import InvalidFieldError, SiteUnavailableError
from steering.layout import AttentionReader
from steering.model_spec import ModelSpec
from steering.plan import PlannedMonitor, Steer, SteeringPlan, compile_plan
from steering.sites import Site, SitePoint

from .instrument import Instrument, OnProgress, Prompts

_BEFORE_ATTENTION: Final = frozenset({Site.EMBED, Site.RESID_PRE, Site.NORM1, Site.HEADS})
_RESIDUAL: Final = frozenset({Site.RESID_PRE, Site.RESID_MID, Site.RESID_POST, Site.FINAL})
_CHUNK_PROMPTS: Final = 32
_CHUNK_REQUESTS: Final = 256


def num_visible_layers(probe: PlannedMonitor) -> int:
    """Return how many layers, from the first on, have heads that act on what the probe reads.

    Raises:
        InvalidFieldError: There are no such layers.
    """
    layer, site = probe.point
    count = layer + (site not in _BEFORE_ATTENTION)
    if count == 0:
        raise InvalidFieldError(
            f"the probe {probe.label} is read at {site.value!r} of layer {layer}, which no "
            "attention head acts on; read it later in the model",
            param="probe",
        )
    return count


def ablation_document(direction: str) -> dict[str, object]:
    """Return the intervention that scales heads by `direction`, norms restored per token."""
    return {"operation": "scale_heads", "direction": direction}


def scaled_plan(
    heads: Sequence[Head], gamma: float, probe: PlannedMonitor, spec: ModelSpec
) -> SteeringPlan:
    """Return a plan that reads the probe while `heads` are scaled by `gamma`.

    Without heads the plan only reads.
    """
    if not heads:
        return SteeringPlan((), (probe,), spec.num_layers)
    direction = heads_direction(heads, name="heads", num_heads=spec.num_heads, gamma=gamma)
    steer = Steer(Intervention.from_dict(ablation_document("heads")), direction)
    edits = compile_plan([steer], [], spec).interventions
    return SteeringPlan(edits, (probe,), spec.num_layers)


@dataclass(frozen=True, eq=False, slots=True)
class Attribution:
    """Direct shares of heads, in the probe's units over |w|.

    Attributes:
        direct: [L, H], by the probe's weight w as it is; the published method.
        folded: [L, H], by w folded through the final norm; None for a probe read before it.
    """

    direct: NDArray[np.float64]
    folded: NDArray[np.float64] | None


def check_attributable(engine: Engine, probe: PlannedMonitor) -> AttentionReader:
    """Return the model's attention weights, having checked that heads have shares of the score.

    Raises:
        InvalidFieldError: The probe is not read on the residual stream.
        SiteUnavailableError: The back end or the family has no such shares.
    """
    reader = engine.info().attention
    if reader is None:
        raise SiteUnavailableError(
            "method is 'attribution', and this engine does not let its weights be read; use "
            "method 'causal'",
            param="method",
        )
    if probe.point.site not in _RESIDUAL:
        names = ", ".join(sorted(site.value for site in _RESIDUAL))
        raise InvalidFieldError(
            f"the probe {probe.label} is read at {probe.point.site.value!r}; heads add to the "
            f"residual stream: expected one of {names}, or method 'causal'",
            param="probe",
        )
    reader.check_linear()
    return reader


async def attribution(
    engine: Engine, instrument: Instrument, prompts: Prompts, probe: PlannedMonitor
) -> Attribution:
    """Return the mean over prompts of <o_{l,i}, w> / |w| at the last token, folded and not.

    o_{l,i} is what head i of layer l adds to the residual stream, w the probe's weight.

    Raises:
        InvalidFieldError, SiteUnavailableError: As `check_attributable`.
        EngineError: As `Engine.capture`.
    """
    reader = check_attributable(engine, probe)
    spec, layers = engine.info().spec, num_visible_layers(probe)
    weight = probe.vector.double().numpy()
    unit = weight / np.linalg.norm(weight)
    pulled = (await instrument.compute(reader.pull_back, unit))[:layers]
    is_folded = probe.point.site is Site.FINAL
    norm = reader.final_norm
    folded_pull = (
        (await instrument.compute(reader.pull_back, norm.fold(unit)))[:layers]
        if is_folded
        else None
    )
    points = [SitePoint(layer, Site.HEADS) for layer in range(layers)]
    last = SitePoint(spec.num_layers - 1, Site.RESID_POST)
    direct = np.zeros((layers, spec.num_heads))
    folded = np.zeros_like(direct)
    for start in range(0, len(prompts), _CHUNK_PROMPTS):  # bounds what is captured at once
        part = prompts[start : start + _CHUNK_PROMPTS]
        read = (await instrument.capture(part, [*points, last])).pooled
        heads = np.stack([read[point].numpy() for point in points])
        share = len(part) / len(prompts)
        direct += share * attribute_heads(heads, pulled, spec.num_heads)
        if folded_pull is not None:
            scales = norm.scale(read[last].double().numpy())
            folded += share * attribute_heads(heads, folded_pull, spec.num_heads, scales=scales)
    return Attribution(direct, folded if is_folded else None)


async def causal_scores(
    engine: Engine,
    instrument: Instrument,
    prompts: Prompts,
    probe: PlannedMonitor,
    factor: float,
    progress: OnProgress | None = None,
) -> NDArray[np.float64]:
    """Return the probe's mean probability with each head scaled by `factor` in turn, [L, H].

    Norms of the attention output are restored per token. `progress` is awaited after every batch
    with how many heads of how many are done.

    Raises:
        EngineError: As `Engine.generate`.

    Source: Refusal Cliff, arXiv:2510.06036 (its code's causal variant, with a factor of 0.001).
    """
    spec, layers = engine.info().spec, num_visible_layers(probe)
    heads = [Head(layer, head) for layer in range(layers) for head in range(spec.num_heads)]
    step = max(1, _CHUNK_REQUESTS // len(prompts))
    means: list[float] = []
    for start in range(0, len(heads), step):
        plans = [scaled_plan([head], factor, probe, spec) for head in heads[start : start + step]]
        means += await _means(instrument, prompts, plans)
        if progress is not None:
            await progress(len(means), len(heads))
    return np.array(means).reshape(layers, spec.num_heads)


async def mean_probability(instrument: Instrument, prompts: Prompts, plan: SteeringPlan) -> float:
    """Return the mean over prompts of the probe's probability at the last token, under a plan."""
    [mean] = await _means(instrument, prompts, [plan])
    return mean


async def _means(
    instrument: Instrument, prompts: Prompts, plans: Sequence[SteeringPlan]
) -> list[float]:
    requests = [
        GenerationRequest("", prompt, SamplingParams(max_tokens=0), plan)
        for plan in plans
        for prompt in prompts
    ]
    read = await instrument.readings(requests)
    logits = np.array([reading.scores[-1] for [reading] in read])
    table = sigmoid(logits).reshape(len(plans), len(prompts))
    return [float(mean) for mean in table.mean(axis=1)]
