"""How far a judge agrees with people who labelled the same answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .concurrency import map_concurrently
from .data import LabelledAnswer
from .errors import EvaluationError
from .judges import Judge
from .statistics import Estimate, Statistic, estimate, kappa


@dataclass(frozen=True, slots=True)
class Calibration:
    """Agreement of a judge with people, over answers that both decide.

    Attributes:
        label: The judge's label that people were asked about.
        accuracy: Share of answers on which they agree.
        kappa: Cohen's kappa: agreement beyond that of two who label as often, at random.
        sensitivity: Share of answers that people give the label to which the judge does too.
        specificity: Share of answers that people do not give it to which the judge does not either.
        counts: Answers by who gives the label: `both`, `judge`, `people`, `neither`.
        unparsable: Answers for which the judge said nothing that could be read.
        undecided: Answers on which people are divided evenly.
    """

    label: str
    accuracy: Estimate
    kappa: Estimate
    sensitivity: Estimate
    specificity: Estimate
    counts: Mapping[str, int]
    unparsable: int
    undecided: int

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


async def calibrate(
    judge: Judge,
    label: str,
    answers: Sequence[LabelledAnswer],
    *,
    concurrency: int = 8,
    seed: int = 0,
) -> Calibration:
    """Judge every answer that people decide, and compare.

    Args:
        judge: The judge; it is not closed.
        label: The label people were asked about, one of the judge's.
        answers: What people said.
        concurrency: Most answers that are judged at once.
        seed: Of the bootstrap interval of kappa.

    Raises:
        EvaluationError: The judge never gives the label, or people decide no answer.
        SteeringClientError: The judge gives no verdict.
    """
    if label not in judge.labels:
        raise EvaluationError(
            f"the judge never says {label!r}; it says {', '.join(sorted(judge.labels))}"
        )
    decided = [answer for answer in answers if answer.is_so is not None]
    if not decided:
        raise EvaluationError("people decide none of the answers; expected labels of one side")

    async def one(answer: LabelledAnswer) -> str | None:
        return (await judge.judge(answer.prompt, answer.answer)).label

    said = await map_concurrently(concurrency, one, decided)
    pairs = {
        str(place): (float(found == label), float(bool(answer.is_so)))
        for place, (found, answer) in enumerate(zip(said, decided, strict=True))
        if found is not None
    }

    def share(people: tuple[float, ...]) -> Estimate:
        agrees = {name: (float(x == y), 1.0) for name, (x, y) in pairs.items() if y in people}
        return estimate(agrees, Statistic.RATE, seed=seed)

    judged = list(pairs.values())
    return Calibration(
        label=label,
        accuracy=share((0.0, 1.0)),
        kappa=kappa(pairs, seed=seed),
        sensitivity=share((1.0,)),
        specificity=share((0.0,)),
        counts={
            "both": judged.count((1.0, 1.0)),
            "judge": judged.count((1.0, 0.0)),
            "people": judged.count((0.0, 1.0)),
            "neither": judged.count((0.0, 0.0)),
        },
        unparsable=len(decided) - len(pairs),
        undecided=len(answers) - len(decided),
    )


def installed_file(package: str, name: str) -> Path:
    """Where a file of an installed package lies; the package is not imported.

    Raises:
        EvaluationError: There is no such package, or it has no such file.
    """
    spec = find_spec(package) if package.isidentifier() else None
    folders = (
        [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    )
    if not folders:
        raise EvaluationError(
            f"package {package!r} is not installed here; install it, or give a file"
        )
    for folder in folders:
        path = (folder / name).resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return path
    raise EvaluationError(f"package {package!r} has no file {name!r}; expected a path within it")
