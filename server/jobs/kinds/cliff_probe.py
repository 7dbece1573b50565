"""Training the probe of the refusal cliff: where thoughts have ended, before their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from torch import Tensor

from server.engine.engine import Engine
from server.jobs.context import JobContext
from server.jobs.kind import JobKind
from server.measure.directions import RequestDirections
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

__all__ = ["CLIFF_PROBE", "CliffProbeQuery", "fit_cliff_probe"]

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


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, and its rollouts in tokens: positive and negative, to fit on and held out.

    Each rollout ends with the end-of-thinking template, whose last token is read.
    """

    query: CliffProbeQuery
    rollouts: tuple[Sequence[tuple[int, ...]], ...]

    @classmethod
    def parse(
        cls, request: Mapping[str, Any], engine: Engine, directions: RequestDirections
    ) -> Self:
        del directions  # it names none
        info = engine.info()
        query = CliffProbeQuery.from_document(request, info.spec)
        train, validation = query.examples.train, query.examples.validation
        sets = (train.positive, train.negative, validation.positive, validation.negative)
        rollouts = tuple(
            [read_rollout(engine.tokenizer, example, info.max_model_len).token_ids for example in s]
            for s in sets
        )
        return cls(query, rollouts)


async def _run(asked: _Request, context: JobContext) -> dict[str, Any]:
    query, stages = asked.query, len(asked.rollouts) + 1
    instrument = Instrument(context.engine, name=f"{context.job_id}-probe", compute=context.compute)
    features = []
    for done, rollouts in enumerate(asked.rollouts):
        await context.report(done / stages, f"reading {len(rollouts)} rollouts")
        read = await instrument.capture(rollouts, [query.point])
        features.append(read.pooled[query.point])
    await context.report(len(asked.rollouts) / stages, "fitting the probe")
    made = await context.compute(
        fit_cliff_probe, query, tuple(features[:2]), tuple(features[2:]), context.spec
    )
    return {
        "direction": await context.save_direction(made),
        "receipt": dict(made.provenance),
    }


CLIFF_PROBE = JobKind(
    name="cliff_probe",
    summary="Train the probe of the refusal cliff, where thoughts end and answers begin.",
    parse=_Request.parse,
    run=_run,
    options={"fields": sorted(_FIELDS), "site": Site.FINAL.value, "l2": 1.0},
)
