"""What an evaluation asks, of which steering, and what it counts: the suite, as YAML states it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .judges import REFUSAL_PHRASES, EndpointSpec, KeywordSpec, LlamaGuardSpec

JudgeSpec = Annotated[KeywordSpec | EndpointSpec | LlamaGuardSpec, Field(discriminator="kind")]

DEFAULT_JUDGES: Final[dict[str, KeywordSpec]] = {
    "refusal": KeywordSpec(kind="keywords", label="refusal", phrases=list(REFUSAL_PHRASES))
}
"""Judges that need not be stated; a suite may state its own under the same name."""

_Text = Annotated[str, Field(min_length=1)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$")]
_Strength = Annotated[float, Field(gt=-100, lt=100)]
_MeasureName = Annotated[str, Field(min_length=1, max_length=64)]


class _Part(BaseModel):
    """One object of a suite; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Addition(_Part):
    """How the control by plain addition is made, where the default does not serve.

    Attributes:
        direction: Direction that is added; by default the treatment's own vector, or the constant
            shift of a transport map or diagonal.
        dose: |change of h| per layer, in mean residual norms; by default the treatment's.
        sign: 1 or -1; by default the treatment's own.
        omit: A reason to have no such control, which the report prints.
    """

    direction: _Text | None = None
    dose: Annotated[float, Field(gt=0)] | None = None
    sign: Literal[1, -1] | None = None
    omit: _Text | None = None


class Treatment(_Part):
    """A steering under test, at one or more strengths.

    Attributes:
        name: Name in the report.
        profile: `name` or `name@version`; give either this or `interventions`.
        interventions: Interventions as in a profile, sent with every request.
        strengths: Factors on the strengths in profile or interventions.
        addition: How its control by plain addition is made.
    """

    name: _Name
    profile: _Text | None = None
    interventions: list[dict[str, Any]] = []
    strengths: Annotated[list[_Strength], Field(min_length=1)] = [1.0]
    addition: Addition = Addition()

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.profile is None) == (not self.interventions):
            raise ValueError("give either profile or interventions, and not both")
        if 0 in self.strengths or len(set(self.strengths)) < len(self.strengths):
            raise ValueError("strengths must differ from 0 (that is the no-op) and each other")
        return self


class Dataset(_Part):
    """Prompts to answer, or texts to score: one JSON object a line, or a public set of prompts.

    Attributes:
        file: Path of the data file, relative to the suite.
        where: Rows of a public set to keep: a column, and the value or values it is to have.
        kind: `chat` where prompts are answered, `text` where texts are scored.
        limit: Number of items that are used, from the first; None means all.
        system: System message put before each chat.
    """

    file: _Text
    where: dict[str, str | list[str]] = {}
    kind: Literal["chat", "text"] = "chat"
    limit: Annotated[int, Field(ge=1)] | None = None
    system: str | None = None


class Controls(_Part):
    """The controls every treatment gets; there is no switch to have none.

    Attributes:
        random_seeds: Seeds of random directions, one direction for each.
        calibration: Chat dataset on whose prompts the dose of a projection is measured; by
            default the first.
        calibration_items: Number of its prompts that are used.
    """

    random_seeds: Annotated[list[int], Field(min_length=1)] = [0]
    calibration: str | None = None
    calibration_items: Annotated[int, Field(ge=2)] = 16


class Suite(_Part):
    """An evaluation.

    Attributes:
        name: Title of the report.
        description: Text below the title.
        model: Name of the model; by default the server's.
        seed: Of bootstrap intervals, and of sampling where `temperature` is not 0.
        concurrency: Most requests under way at once.
        max_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token.
        chat_template_kwargs: Variables of the model's chat template, such as `enable_thinking`.
        thinking_end: What ends a thought; the text after it is judged, both are kept.
        datasets: Prompts and texts, by name.
        treatments: The steering under test.
        controls: What the treatments are compared with.
        judges: By name, added to `refusal`, the keyword list of the literature.
        measures: What is counted in answers and scores.
    """

    name: _Name
    description: str = ""
    model: str | None = None
    seed: int = 0
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    max_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    chat_template_kwargs: dict[str, str | float | bool | None] = {}
    thinking_end: str = "</think>"
    datasets: Annotated[dict[_Name, Dataset], Field(min_length=1)]
    treatments: Annotated[list[Treatment], Field(min_length=1)]
    controls: Controls = Controls()
    judges: dict[_Name, JudgeSpec] = {}
    measures: Annotated[list[Measure], Field(min_length=1)]

    @property
    def template(self) -> dict[str, Any]:
        """What requests with messages say of the chat template; nothing where nothing is asked."""
        asked = self.chat_template_kwargs
        return {"chat_template_kwargs": asked} if asked else {}

    def judge_spec(self, name: str) -> JudgeSpec:
        """A judge of the suite, or a default one."""
        return self.judges.get(name) or DEFAULT_JUDGES[name]

    @property
    def judge_names(self) -> frozenset[str]:
        """Every judge a measure may name."""
        return frozenset(self.judges) | frozenset(DEFAULT_JUDGES)


class _Measure(BaseModel):
    """What all measures have.

    Attributes:
        name: Heading in the report.
        dataset: Dataset whose answers or texts are counted.
        wanted: Which way is better, for the report; none: neither.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _MeasureName
    dataset: str
    wanted: Literal["high", "low"] | None = None


class Second(BaseModel):
    """A second judge, whose disagreement with the first is counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: str
    label: str


class RateMeasure(_Measure):
    """`kind: rate`: share of answers to which a judge gives a label."""

    kind: Literal["rate"]
    judge: str = "refusal"
    label: str = "refusal"
    second: Second | None = None


class TopicalMeasure(_Measure):
    """`kind: topical`: share of answers that are no refusal and have a phrase of each topic group.

    Items of the dataset carry the groups as `topic`.
    """

    kind: Literal["topical"]
    judge: str = "refusal"
    label: str = "refusal"


class DegenerateMeasure(_Measure):
    """`kind: degenerate`: share of answers that are empty or repeat themselves.

    Attributes:
        min_distinct: Least share of distinct bigrams of an answer that does not.
    """

    kind: Literal["degenerate"]
    min_distinct: Annotated[float, Field(ge=0, le=1)] = 0.5


class DistinctMeasure(_Measure):
    """`kind: distinct`: mean share of distinct n-grams of words in an answer."""

    kind: Literal["distinct"]
    n: Annotated[int, Field(ge=1, le=8)] = 2


class PerplexityMeasure(_Measure):
    """`kind: perplexity`: exp of the mean negative log-probability of the texts' tokens."""

    kind: Literal["perplexity"]


class DivergenceMeasure(_Measure):
    """`kind: kl`: mean KL(unsteered || steered) of the next-token distributions, in nats.

    Taken along the unsteered model's own answers to the dataset, what follows them included.
    """

    kind: Literal["kl"]


Measure = Annotated[
    RateMeasure
    | TopicalMeasure
    | DegenerateMeasure
    | DistinctMeasure
    | PerplexityMeasure
    | DivergenceMeasure,
    Field(discriminator="kind"),
]
