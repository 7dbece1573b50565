"""Training the probe of the refusal cliff: where thoughts have ended, before their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from torch import Tensor

from server.engine.engine import Engine
from server.engine.text import Tokenizer
from server.jobs.context import JobContext
from server.jobs.kind import JobKind
from server.measure.directions import RequestDirections
from server.measure.examples.example import Example
from server.measure.examples.examples import SIDES, Examples
from server.measure.instrument import Instrument
from server.measure.rollout import read_rollout
from server.store.names import check_name
from steering.directions import Direction
from steering.errors import InvalidFieldError
from steering.fields import check_keys, integer, number, require, seed_number
from steering.fit import POSITIVE
from steering.fit.fitters.probe import fit_probe
from steering.model_spec import ModelSpec
from steering.sites import Site, SitePoint, parse_site

__all__ = ["CLIFF_PROBE", "CliffProbeQuery", "fit_cliff_probe", "read_features"]

_FIELDS: Final = frozenset({"name", "data", "layer", "site", "l2", "seed", "requires"})


@dataclass(frozen=True, slots=True)
class CliffProbeQuery:
    """A checked request for a probe.

    Attributes:
        name: Of the direction.
        examples: Rollouts that refuse (positive) and that comply (negative), split.
        point: Where features are read; `final` of the last layer unless chosen otherwise.
        l2: As in `fit_probe`.
        seed: Of the split.
    """

    name: str
    examples: Examples
    point: SitePoint
    l2: float
    seed: int

    @classmethod
    def from_document(cls, document: Mapping[str, Any], spec: ModelSpec) -> Self:
        """Read `{"name", "data": {"positive", "negative", "validation"}, "layer", "site", ...}`.

        Raises:
            SteeringError: With `param` naming the field.
        """
        check_keys(document, _FIELDS, noun="a cliff probe")
        name = require(document, "name", noun="a cliff probe")
        data = require(document, "data", noun="a cliff probe")
        if not isinstance(name, str) or not isinstance(data, Mapping):
            param = "data" if isinstance(name, str) else "name"
            raise InvalidFieldError("name is a text and data an object", param=param)
        check_keys(data, {*SIDES, "pairs", "validation"}, noun="data", prefix="data.")
        check_name(name)
        l2 = number(document.get("l2", 1.0), "l2")
        POSITIVE.check(l2, "l2")
        seed = seed_number(document.get("seed", 0), "seed")
        site = parse_site(str(document.get("site", Site.FINAL.value)))
        spec.require_site(site, editable=False)
        layer = integer(document.get("layer", spec.num_layers - 1), "layer")
        spec.require_layer(layer, param="layer")
        if site is Site.FINAL and layer != spec.num_layers - 1:
            raise InvalidFieldError(
                f"layer is {layer} for site 'final'; expected {spec.num_layers - 1}", param="layer"
            )
        return cls(
            name=name,
            examples=Examples.parse(data, seed),
            point=SitePoint(layer, site),
            l2=l2,
            seed=seed,
        )


async def read_features(
    instrument: Instrument,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    point: SitePoint,
    max_tokens: int,
) -> Tensor:
    """Activations [N, d] at the last token of prompt, thought and end-of-thinking template."""
    rollouts = await instrument.compute(
        lambda: [read_rollout(tokenizer, example, max_tokens) for example in examples]
    )
    read = await instrument.capture([rollout.token_ids for rollout in rollouts], [point])
    return read.pooled[point]


def fit_cliff_probe(
    query: CliffProbeQuery,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    spec: ModelSpec,
) -> Direction:
    """A logistic probe of refusing against complying, with its accuracy on held-out rollouts.

    Args:
        query: Name, place and options.
        train: Positive and negative features, each [N, d].
        validation: The same of the held-out ones.
        spec: Of the model.

    Raises:
        FitError: The sets are not told apart, or the fit does not converge.

    Source: Refusal Cliff, arXiv:2510.06036 (a linear probe, there trained by Adam).
    """
    layer, site = query.point
    made = fit_probe(
        *train,
        name=query.name,
        layer=layer,
        site=site,
        l2=query.l2,
        model_fingerprint=spec.fingerprint,
    )
    tensors = made.at(layer)
    scored = [rows.float() @ tensors["weight"] + tensors["bias"] for rows in validation]
    accuracies = [float((scored[0] > 0).float().mean()), float((scored[1] <= 0).float().mean())]
    return replace(
        made,
        provenance={
            **made.provenance,
            "token": "end_of_thinking",
            "seed": query.seed,
            "sha256": dict(query.examples.sha256),
            "num_validation": [len(rows) for rows in validation],
            "validation_accuracy": sum(accuracies) / 2,
            "notes": list(query.examples.notes()),
        },
    )


async def _run(request: Mapping[str, Any], context: JobContext) -> dict[str, Any]:
    query = CliffProbeQuery.from_document(request, context.spec)
    engine, examples = context.engine, query.examples
    sets = [
        examples.train.positive,
        examples.train.negative,
        examples.validation.positive,
        examples.validation.negative,
    ]
    instrument = Instrument(engine, name=f"{context.job_id}-probe", compute=context.compute)
    features = []
    for number_, part in enumerate(sets):
        await context.report(number_ / (len(sets) + 1), f"reading {len(part)} rollouts")
        features.append(
            await read_features(
                instrument, engine.tokenizer, part, query.point, engine.info().max_model_len
            )
        )
    await context.report(len(sets) / (len(sets) + 1), "fitting the probe")
    made = await context.compute(
        fit_cliff_probe, query, tuple(features[:2]), tuple(features[2:]), context.spec
    )
    return {
        "direction": await context.save_direction(made),
        "receipt": dict(made.provenance),
    }


def _parse(request: Mapping[str, Any], engine: Engine, directions: RequestDirections) -> None:
    del directions  # it names none
    query = CliffProbeQuery.from_document(request, engine.info().spec)
    for example in (*query.examples.train.all, *query.examples.validation.all):
        read_rollout(engine.tokenizer, example, engine.info().max_model_len)


CLIFF_PROBE: Final = JobKind(
    name="cliff_probe",
    summary="Train the probe of the refusal cliff, where thoughts end and answers begin.",
    parse=_parse,
    run=_run,
    options={"fields": sorted(_FIELDS), "site": Site.FINAL.value, "l2": 1.0},
)
