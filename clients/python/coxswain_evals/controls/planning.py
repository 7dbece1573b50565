"""From the treatments of a suite to every arm that is asked: each with its controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from coxswain_client.client import AsyncCoxswain
from coxswain_client.models.generation import ChatMessage
from coxswain_evals.arm import Arm, Role
from coxswain_evals.errors import DoseError
from coxswain_evals.suite import Addition, Suite, Treatment

from .directions import ControlDirections
from .dose import SHIFTS, Dose, Dosing

NO_OP: Final = Arm("no-op", Role.NO_OP, {"profile": "none"})
_DRAFT: Final = "evaluation-draft"
_TOLERANCE: Final = 1e-4  # of doses, relative
_PLAIN: Final = {
    "operation", "direction", "layers", "site", "strength", "unit", "scope", "schedule",
}  # fmt: skip


@dataclass(frozen=True)
class _Planner:
    client: AsyncCoxswain
    directions: ControlDirections
    addition: AdditionControl
    random_seeds: Sequence[int]

    async def arms(self, treatment: Treatment) -> list[Arm]:
        """The treatment at each strength, each followed by its controls."""
        arms = []
        reference, interventions = await self._resolve(treatment)
        for strength in treatment.strengths:
            scaled = [_scaled(item, strength) for item in interventions]
            steering: dict[str, Any] = {"interventions": scaled}
            if reference is not None:
                # A suite names its strengths, also those beyond the profile's maximum.
                steering = {
                    "profile": reference,
                    "strength": strength,
                    "ignore_max_strength": True,
                }
            arm = await self._arm(
                f"{treatment.name} x {strength:g}", Role.TREATMENT, treatment, strength, scaled
            )
            treated = replace(arm, steering=steering)
            treated, added = await self._added(treated, treatment, scaled)
            random = [await self._random(treated, treatment, scaled, s) for s in self.random_seeds]
            arms += [treated, *random, added]
        return arms

    async def _resolve(self, treatment: Treatment) -> tuple[str | None, list[dict[str, Any]]]:
        if treatment.profile is None:
            return None, treatment.interventions
        profile = await self.client.profiles.get(treatment.profile)
        return f"{profile.name}@{profile.version}", profile.interventions

    async def _arm(
        self,
        name: str,
        role: Role,
        treatment: Treatment,
        strength: float,
        interventions: Sequence[Mapping[str, Any]],
        note: str = "",
    ) -> Arm:
        """Inline interventions as an arm, with what the server says they would do."""
        report = await self.client.profiles.validate(_DRAFT, list(interventions))  # type: ignore[arg-type]
        expected = [{k: v for k, v in i.items() if k != "doses"} for i in report.interventions]
        doses = [dict(entry["doses"]) for entry in report.interventions]
        steering = {"interventions": list(interventions)}
        return Arm(name, role, steering, treatment.name, strength, expected, doses, note)

    async def _random(
        self, arm: Arm, treatment: Treatment, scaled: Sequence[Mapping[str, Any]], seed: int
    ) -> Arm:
        """The same operations, layers, strengths and scopes on random directions."""
        turned = []
        for item, entry in zip(scaled, arm.expected, strict=True):
            reference = await self.directions.random(entry["direction"], seed)
            turned.append({**item, "direction": reference})
        name = f"random {seed} of {arm.name}"
        assert arm.strength is not None, "a treatment has a strength"
        return await self._arm(name, Role.RANDOM, treatment, arm.strength, turned)

    async def _added(
        self, arm: Arm, treatment: Treatment, scaled: Sequence[Mapping[str, Any]]
    ) -> tuple[Arm, Arm]:
        """The treatment with its dose, and plain addition at the same."""
        name = f"addition of {arm.name}"
        assert arm.strength is not None, "a treatment has a strength"
        empty = Arm(name, Role.ADDITION, {}, treatment.name, arm.strength)
        if treatment.addition.omit is not None:
            return arm, replace(empty, note=f"left out: {treatment.addition.omit}")
        if self.addition.is_plain(scaled, treatment.addition):
            note = "the treatment is itself plain addition"
            return arm, replace(empty, note=note, same_as=arm.name, doses=arm.doses)
        added, found = await self.addition.interventions(arm, scaled, treatment.addition)
        doses = [{str(layer): dose.size for layer, dose in by.items()} for by in found]
        hows = dict.fromkeys(dose.how for by in found for dose in by.values())
        note = f"dose {', '.join(hows)}"
        control = await self._arm(name, Role.ADDITION, treatment, arm.strength, added, note)
        check_equal(control, doses)
        return replace(arm, doses=doses, note=note), control


async def plan_arms(
    client: AsyncCoxswain, suite: Suite, model: str, calibration: Sequence[list[ChatMessage]]
) -> list[Arm]:
    """Every arm: the no-op, and each treatment at each strength with its controls.

    Random directions, and vectors made of constant shifts, are stored on the server under names
    that say what they are; an evaluation that needs them again finds them.

    Args:
        client: Client of the server; its key needs the permissions `admin`, `inline`, `read` and
            `chat`.
        suite: The suite whose treatments are planned.
        model: Name of the model.
        calibration: Chats on which the dose of projections is measured.

    Raises:
        DoseError: A control at equal dose cannot be built.
        SteeringClientError: A treatment is not what the server can do.
    """
    directions = ControlDirections(client)
    dosing = await Dosing.of(client, suite, model, calibration, directions)
    planner = _Planner(
        client, directions, AdditionControl(directions, dosing), suite.controls.random_seeds
    )
    arms = [NO_OP]
    for treatment in suite.treatments:
        arms += await planner.arms(treatment)
    return arms


def _scaled(intervention: Mapping[str, Any], factor: float) -> dict[str, Any]:
    return {**intervention, "strength": float(intervention.get("strength", 1.0)) * factor}


@dataclass(frozen=True)
class AdditionControl:
    """Builds the control by plain addition.

    It adds a constant vector that moves activations as far as the treatment does. It has the
    treatment's layers, site, scope and schedule, and no gate: the dose is that of an open gate.

    Attributes:
        directions: Directions of the server.
        dosing: Finds the doses of treatments.
    """

    directions: ControlDirections
    dosing: Dosing

    @staticmethod
    def is_plain(interventions: Sequence[Mapping[str, Any]], wanted: Addition) -> bool:
        """Whether a treatment is nothing but plain addition, and no other is asked for."""
        is_default = wanted.direction is None and wanted.dose is None and wanted.sign is None
        return is_default and all(
            item["operation"] == "add" and not _has_more(item) for item in interventions
        )

    async def interventions(
        self, arm: Arm, scaled: Sequence[Mapping[str, Any]], wanted: Addition
    ) -> tuple[list[dict[str, Any]], list[dict[int, Dose]]]:
        """An addition for each layer of each intervention, and the doses it is made to.

        Raises:
            DoseError: The treatment has neither a vector to add nor a dose, and the suite states
                none.
        """
        added: list[dict[str, Any]] = []
        doses: list[dict[int, Dose]] = []
        for index, item in enumerate(scaled):
            entry = arm.expected[index]
            direction = wanted.direction or await self._vector(arm, entry)
            doses.append(await self._doses(arm, index, item, wanted))
            for layer, dose in doses[-1].items():
                addition = {
                    "operation": "add",
                    "direction": direction,
                    "layers": [layer],
                    "site": entry["site"],
                    "strength": dose.size * (wanted.sign or dose.sign),
                    "unit": "resid",
                    "scope": entry["scope"],
                }
                schedule = {"schedule": item["schedule"]} if "schedule" in item else {}
                added.append({**addition, **schedule})
        return added, doses

    async def _doses(
        self, arm: Arm, index: int, item: Mapping[str, Any], wanted: Addition
    ) -> dict[int, Dose]:
        if wanted.dose is None:
            return await self.dosing.doses(arm, index, item)
        layers = arm.expected[index]["layers"]
        return {layer: Dose(wanted.dose, 1, "stated in the suite") for layer in layers}

    async def _vector(self, arm: Arm, entry: Mapping[str, Any]) -> str:
        reference: str = entry["direction"]
        kind = (await self.directions.get(reference)).kind
        if kind == "vector":
            return reference
        if kind not in SHIFTS:
            lack = f"is of kind {kind!r}, which has no vector to add"
        elif not await self.directions.has_shift(reference):
            lack = "has a constant shift of 0, which is nothing to add"
        else:
            return await self.directions.shift(reference)
        raise DoseError(
            f"treatment {arm.treatment!r}: {reference} {lack}; state addition.direction and "
            "addition.dose in the suite, or addition.omit with a reason"
        )


def check_equal(control: Arm, doses: Sequence[Mapping[str, float]]) -> None:
    """Check that the server would move activations by the doses a control was made to.

    Raises:
        DoseError: It would not.
    """
    wanted = [dose for by in doses for dose in by.values()]
    told = [dose for by in control.doses for dose in by.values()]
    is_equal = len(wanted) == len(told) and all(
        got is not None and math.isclose(got, dose, rel_tol=_TOLERANCE)
        for got, dose in zip(told, wanted, strict=True)
    )
    if not is_equal:
        raise DoseError(f"{control.name}: the server tells doses {told}; expected {wanted}")


def _has_more(item: Mapping[str, Any]) -> bool:
    """Whether an addition does more than add a constant."""
    return any(value not in (None, False) for key, value in item.items() if key not in _PLAIN)
