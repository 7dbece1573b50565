"""Training the probe of the refusal cliff: where thoughts have ended, before their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field
from torch import Tensor

from server.engine.engine import Engine
from server.jobs.context import JobContext
from server.jobs.kind import JobKind
from server.measure.directions import RequestDirections
from server.measure.examples.examples import ContrastData, Examples
from server.measure.examples.variables import TemplateVariables
from server.measure.instrument import Instrument
from server.measure.rollout import read_rollout
from server.store.names import RegistryName
from steering.directions import Direction
from steering.documents import Document, Integer, Seed, SiteName, Texts, refused
from steering.errors import InvalidFieldError
from steering.fit.fitters.probe import fit_probe
from steering.fit.options import Positive
from steering.model_spec import ModelSpec
from steering.sites import Site, SitePoint


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise refused("is a text and data an object")
    return value


def _object(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidFieldError("name is a text and data an object")
    return value


class CliffProbeJob(Document):
    """What is asked of a probe."""

    noun: ClassVar[str] = "a cliff probe"

    name: Annotated[RegistryName, BeforeValidator(_text)] = Field(description="Of the direction.")
    data: Annotated[ContrastData, BeforeValidator(_object)] = Field(
        description="Rollouts that refuse (positive) and that comply (negative)."
    )
    chat_template_kwargs: TemplateVariables = Field(
        default_factory=dict, description="Variables of the chat template that they are written by."
    )
    l2: Positive = Field(default=1.0, description="Strength of the penalty on the squared weights.")
    seed: Seed = Field(default=0, description="Of the split.")
    site: Annotated[SiteName, BeforeValidator(str)] = Field(
        default=Site.FINAL, description="Where features are read."
    )
    layer: Integer | None = Field(
        default=None, description="Layer (0-based) where they are read; by default the last."
    )
    requires: Texts = Field(
        default=(), description="Permissions that using the direction is to take."
    )

    def point(self, spec: ModelSpec) -> SitePoint:
        """Where features are read.

        Raises:
            SteeringError: The model has no such place.
        """
        last = spec.num_layers - 1
        layer = last if self.layer is None else self.layer
        spec.require_site(self.site, editable=False)
        spec.require_layer(layer, param="layer")
        if self.site is Site.FINAL and layer != last:
            raise InvalidFieldError(
                f"layer is {layer} for site 'final'; expected {last}", param="layer"
            )
        return SitePoint(layer, self.site)


@dataclass(frozen=True, slots=True)
class CliffProbeQuery:
    """A request for a probe, checked against the model.

    Attributes:
        name: Of the direction.
        examples: Rollouts that refuse (positive) and that comply (negative), split.
        point: Where features are read.
        l2: As in `fit_probe`.
        seed: Of the split.
    """

    name: str
    examples: Examples
    point: SitePoint
    l2: float
    seed: int

    @classmethod
    def of(cls, asked: CliffProbeJob, spec: ModelSpec) -> Self:
        """Split the rollouts.

        Raises:
            SteeringError: Too few rollouts, or a place that the model does not have.
        """
        point = asked.point(spec)
        examples = Examples.of(asked.data, asked.seed)
        return cls(asked.name, examples, point, asked.l2, asked.seed)


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
        job = CliffProbeJob.from_dict(request)
        query = CliffProbeQuery.of(job, info.spec)
        train, validation = query.examples.train, query.examples.validation
        sets = (train.positive, train.negative, validation.positive, validation.negative)
        read = partial(
            read_rollout,
            engine.tokenizer,
            max_tokens=info.max_model_len,
            variables=job.chat_template_kwargs,
        )
        rollouts = tuple([read(example).token_ids for example in examples] for examples in sets)
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
    request=CliffProbeJob,
    parse=_Request.parse,
    run=_run,
    options={"fields": sorted(CliffProbeJob.known()), "site": Site.FINAL.value, "l2": 1.0},
)
