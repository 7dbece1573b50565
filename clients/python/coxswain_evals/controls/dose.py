"""How far a treatment moves activations, so that plain addition can move them as far.

The dose of an intervention at a layer is the mean |change of h| over the mean residual norm there.

- `add`: constant, and told by `profiles:validate`.
- `ablate`, `set` and `clamp` along a vector: the change is the projection to be removed, so it is
  measured, on calibration prompts with the treatment active: monitors read h u before the edit, and
  the change is target(h u) - h u times the strength. Monitors read the last prompt token and the
  generated ones; of these, those in the scope count where the scope is `last_prompt` or
  `generated`, all of them otherwise.
- `transport` and `diagonal`: that of the constant shift, as `profiles:validate` tells it; the part
  that depends on h is left out.
- Anything else has no such number; the suite states it (`addition.dose`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from coxswain_client.client import AsyncCoxswain
from coxswain_client.models.generation import ChatCompletion, ChatMessage
from coxswain_evals.arm import Arm, check_steering
from coxswain_evals.concurrency import map_concurrently
from coxswain_evals.errors import DoseError
from coxswain_evals.suite import Suite

from .directions import ControlDirections

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROJECTIONS: Final = ("ablate", "set", "clamp")
"""Operations whose change along a vector depends on the projection alone."""

SHIFTS: Final = ("transport", "diagonal")
"""Operations, and kinds of directions, with a constant shift."""


@dataclass(frozen=True, slots=True)
class Dose:
    """What an intervention does at one layer.

    Attributes:
        size: |change of h| in mean residual norms.
        sign: 1 where it moves along the direction, -1 where against it.
        how: How it was found.
    """

    size: float
    sign: int
    how: str


@dataclass(frozen=True)
class Projection:
    """A change of h along a unit vector u that depends on z = h u alone.

    Attributes:
        strength: Strength of the intervention.
        target: Gives where z goes at strength 1.
        resid_norm: Mean residual norm at the point.
    """

    strength: float
    target: Callable[[float], float]
    resid_norm: float

    @classmethod
    def of(
        cls,
        intervention: Mapping[str, Any],
        layer: int,
        tensors: Mapping[str, NDArray[np.float32]],
        resid_norm: float,
    ) -> Projection:
        """The change an intervention of kind ablate, set or clamp makes at a layer."""
        strength = float(intervention.get("strength", 1.0))
        match intervention["operation"]:
            case "set":
                value = float(intervention["value"])
                return cls(strength, lambda _: value, resid_norm)
            case "clamp":
                least = float(intervention.get("minimum", float("-inf")))
                most = float(intervention.get("maximum", float("inf")))
                return cls(strength, lambda z: min(max(z, least), most), resid_norm)
        place = _reference(intervention.get("reference", 0.0), layer, tensors)
        return cls(strength, lambda _: place, resid_norm)

    def dose(self, readings: Sequence[float]) -> Dose:
        """The mean dose over readings of z.

        Raises:
            DoseError: There are none.
        """
        if not readings:
            raise DoseError("monitors read no token of the scope; state addition.dose in the suite")
        changes = [self.strength * (self.target(z) - z) for z in readings]
        size = sum(map(abs, changes)) / len(changes) / self.resid_norm
        how = f"measured: mean over {len(changes)} tokens read by monitors"
        return Dose(size, 1 if sum(changes) >= 0 else -1, how)


def _reference(given: float | str, layer: int, tensors: Mapping[str, NDArray[np.float32]]) -> float:
    """Where ablation leaves the projection: a number along u, or that of the stored reference."""
    import numpy as np

    if given != "stored":
        return float(given)
    suffix = f".{layer}" if f"vector.{layer}" in tensors else ""
    vector = tensors[f"vector{suffix}"].astype(np.float64)
    return float(tensors[f"reference{suffix}"] @ vector / np.linalg.norm(vector))


def scope_readings(
    reading: Mapping[str, Any], scope: Mapping[str, Any], num_prompt_tokens: int
) -> list[float]:
    """Scores of one answer's monitor at tokens of a scope, as far as monitors read them."""
    pairs = [
        (position, score)
        for position, score in zip(reading["positions"], reading["scores"], strict=True)
        if score is not None
    ]
    tokens = scope.get("tokens")
    named = {tokens} if isinstance(tokens, str) else set(tokens or ())
    if named == {"last_prompt"}:
        return [score for position, score in pairs if position < num_prompt_tokens]
    if named == {"generated"}:
        return [score for position, score in pairs if position >= num_prompt_tokens]
    return [score for _, score in pairs]


@dataclass(frozen=True)
class Dosing:
    """Finds doses on one server.

    Attributes:
        client: Client of the server.
        suite: States how answers are asked for.
        model: Name of the model.
        calibration: Chats on which projections are measured.
        directions: Directions of the server, with their tensors.
        resid_norms: Mean residual norm by site and layer, as the server measured it.
    """

    client: AsyncCoxswain
    suite: Suite
    model: str
    calibration: Sequence[list[ChatMessage]]
    directions: ControlDirections
    resid_norms: Mapping[str, Mapping[str, float]]

    @classmethod
    async def of(
        cls,
        client: AsyncCoxswain,
        suite: Suite,
        model: str,
        calibration: Sequence[list[ChatMessage]],
        directions: ControlDirections,
    ) -> Dosing:
        """What finds doses in one evaluation; asks the server for its residual norms."""
        sites = (await client.capabilities())["sites"]
        norms = {site["site"]: site["resid_norms"] for site in sites}
        return cls(client, suite, model, calibration, directions, norms)

    async def doses(self, arm: Arm, index: int, intervention: Mapping[str, Any]) -> dict[int, Dose]:
        """The dose of one intervention of an arm, by layer.

        Raises:
            DoseError: It has none that can be told or measured.
        """
        operation, layers = intervention["operation"], arm.expected[index]["layers"]
        if operation in PROJECTIONS:
            kind = (await self.directions.get(arm.expected[index]["direction"])).kind
            if kind == "vector":
                return await self._measured(arm, index, intervention)
        told = arm.doses[index]
        sign = 1 if float(intervention.get("strength", 1.0)) > 0 else -1
        is_told = operation == "add" or operation in SHIFTS
        if is_told and all(told[str(layer)] for layer in layers):
            how = "told by the server" if operation == "add" else "of the constant shift alone"
            return {layer: Dose(told[str(layer)] or 0.0, sign, how) for layer in layers}
        raise DoseError(
            f"treatment {arm.treatment!r}: the dose of {operation!r} can be neither told nor "
            "measured; state addition.dose and addition.direction, or addition.omit with a reason"
        )

    async def _measured(
        self, arm: Arm, index: int, intervention: Mapping[str, Any]
    ) -> dict[int, Dose]:
        entry = arm.expected[index]
        point = {"direction": entry["direction"], "site": entry["site"]}
        monitors = [{**point, "layer": layer} for layer in entry["layers"]]
        steering = arm.options(monitors=monitors)

        async def ask(turns: list[ChatMessage]) -> ChatCompletion:
            answer = await self.client.chat(
                turns,
                model=self.model,
                steering=steering,
                temperature=0,
                max_tokens=self.suite.max_tokens,
            )
            check_steering(arm, answer.steering)
            return answer

        answers = await map_concurrently(self.suite.concurrency, ask, self.calibration)
        tensors = await self.directions.tensors(entry["direction"])
        doses = {}
        for layer in entry["layers"]:
            projection = Projection.of(intervention, layer, tensors, self._norm(entry, layer))
            doses[layer] = projection.dose(_readings(answers, entry, layer))
        return doses

    def _norm(self, entry: Mapping[str, Any], layer: int) -> float:
        norm = self.resid_norms.get(entry["site"], {}).get(str(layer))
        if norm is None:
            raise DoseError(f"the server has no residual norm at {entry['site']} of layer {layer}")
        return float(norm)


def _readings(
    answers: Sequence[ChatCompletion], entry: Mapping[str, Any], layer: int
) -> list[float]:
    scores = []
    for answer in answers:
        for reading in answer.steering.monitors[entry["direction"]]:
            if reading["layer"] == layer and reading["site"] == entry["site"]:
                prompt = answer.usage.prompt_tokens
                scores += scope_readings(reading, entry["scope"], prompt)
    return scores
