"""Controls: there without being asked for, at equal norm and equal dose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coxswain_client import AsyncCoxswain
from coxswain_evals.arm import Arm, Role
from coxswain_evals.controls.directions import read_tensors
from coxswain_evals.controls.planning import plan_arms
from coxswain_evals.errors import DoseError

from .conftest import PROMPTS, UNIT, suite

# What the echo engine's monitors read of the last prompt token: a tenth of its position.
READINGS = [(len(f"<user\n{text}>\n<assistant\n") - 1) / 10 for text in PROMPTS]
NORM = 3.0  # of residuals at resid_post of layer 1 of the echo model


async def plan(client: AsyncCoxswain, folder: Path, **treatment: Any) -> list[Arm]:
    loaded = suite(folder, treatments=[{"name": "it", **treatment}])
    chats = [item.turns(None) for item in loaded.items["ask"]]
    return await plan_arms(client, loaded.suite, "echo", chats)


async def norms(client: AsyncCoxswain, reference: str) -> np.ndarray:
    tensors = read_tensors(await client.directions.tensors(reference))
    return np.array([np.linalg.norm(tensors[name]) for name in sorted(tensors)])


async def test_every_strength_has_its_controls(echo: AsyncCoxswain, tmp_path: Path) -> None:
    arms = await plan(echo, tmp_path, profile="loud", strengths=[0.5, 1.0])
    assert [arm.name for arm in arms] == [
        "no-op",
        "it x 0.5",
        "random 0 of it x 0.5",
        "addition of it x 0.5",
        "it x 1",
        "random 0 of it x 1",
        "addition of it x 1",
    ]
    assert [arm.role for arm in arms[:4]] == [*Role]
    assert arms[1].steering == {
        "profile": "loud@1",
        "strength": 0.5,
        "ignore_max_strength": True,
    }
    assert arms[0].steering == {"profile": "none"}


@pytest.mark.parametrize(
    "intervention",
    [
        {"operation": "add", "direction": "cheer", "strength": 2.0},
        {"operation": "ablate", "direction": "cheer", "scope": {"tokens": "last_prompt"}},
        {"operation": "transport", "direction": "map", "scope": {"tokens": "generated"}},
    ],
    ids=lambda item: item["operation"],
)
async def test_random_directions_are_as_long_and_used_the_same_way(
    echo: AsyncCoxswain, tmp_path: Path, intervention: dict[str, Any]
) -> None:
    _, arm, random, _ = await plan(echo, tmp_path, interventions=[intervention])
    [treated], [turned] = arm.expected, random.expected
    assert turned["direction"] == f"random-0-of-{intervention['direction']}-1@1"
    assert {**turned, "direction": treated["direction"]} == treated
    np.testing.assert_allclose(
        await norms(echo, turned["direction"]), await norms(echo, treated["direction"]), rtol=1e-5
    )
    stored = await echo.directions.get(turned["direction"])
    assert stored.provenance["seed"] == 0
    again = (await plan(echo, tmp_path, interventions=[intervention]))[2]
    assert again.steering == random.steering


async def test_ablation_is_compared_with_an_addition_that_moves_as_far(
    echo: AsyncCoxswain, tmp_path: Path
) -> None:
    _, arm, _, added = await plan(echo, tmp_path, profile="loud", strengths=[0.5])
    moved = 0.5 * np.mean(READINGS)
    [item] = added.steering["interventions"]
    assert item["operation"] == "add"
    assert item["direction"] == "cheer@1"
    assert item["unit"] == "resid"
    assert item["scope"] == {"tokens": "last_prompt"}
    assert item["strength"] == pytest.approx(-moved / NORM)
    assert added.dose == pytest.approx(arm.dose)
    assert added.note == "dose measured: mean over 4 tokens read by monitors"


@pytest.mark.parametrize(
    ("intervention", "target"),
    [
        ({"operation": "set", "value": 9.0}, lambda z: 9.0),
        ({"operation": "clamp", "minimum": 0.0, "maximum": 2.5}, lambda z: min(z, 2.5)),
        ({"operation": "ablate", "reference": 1.0}, lambda z: 1.0),
    ],
    ids=["set", "clamp", "reference"],
)
async def test_other_projections_are_measured_too(
    echo: AsyncCoxswain, tmp_path: Path, intervention: dict[str, Any], target: Any
) -> None:
    item = {"direction": "cheer", "scope": {"tokens": "last_prompt"}, **intervention}
    _, _, _, added = await plan(echo, tmp_path, interventions=[item])
    changes = [target(z) - z for z in READINGS]
    [made] = added.steering["interventions"]
    assert abs(made["strength"]) == pytest.approx(np.abs(changes).mean() / NORM)
    assert np.sign(made["strength"]) == np.sign(sum(changes))


async def test_a_map_is_compared_with_its_constant_shift(
    echo: AsyncCoxswain, tmp_path: Path
) -> None:
    item = {"operation": "transport", "direction": "map", "strength": 0.6}
    _, arm, _, added = await plan(echo, tmp_path, interventions=[item])
    [made] = added.expected
    assert made["direction"] == "shift-of-map-1@1"
    shift = read_tensors(await echo.directions.tensors(made["direction"]))["vector"]
    assert shift.tolist() == [0, 0, 0, 0, 0, 0, 0, 1.0]
    assert added.dose == pytest.approx(0.6 / NORM) == arm.dose
    for reference in (made["direction"], "random-0-of-map-1@1"):
        assert (await echo.directions.get(reference)).requires == ["restricted"]


async def test_plain_addition_is_its_own_control(echo: AsyncCoxswain, tmp_path: Path) -> None:
    _, arm, random, added = await plan(echo, tmp_path, profile="cheerful")
    assert added.same_as == arm.name
    assert added.steering == {}
    assert random.dose == pytest.approx(arm.dose) == pytest.approx(2 * 5 / NORM)


async def test_another_direction_may_be_added(echo: AsyncCoxswain, tmp_path: Path) -> None:
    await echo.directions.create(
        name="other", kind="vector", site="resid_post", layers=[1], tensors={"vector": [0, 1.0] * 4}
    )
    wanted = {"direction": "other", "sign": -1}
    _, arm, _, added = await plan(echo, tmp_path, profile="cheerful", addition=wanted)
    [made] = added.expected
    assert made["direction"] == "other@1"
    assert made["strength"] == pytest.approx(-10 / NORM)
    assert added.dose == pytest.approx(arm.dose)


async def test_what_has_no_dose_says_what_to_state(echo: AsyncCoxswain, tmp_path: Path) -> None:
    spread = {"operation": "ablate", "direction": "plane"}
    with pytest.raises(DoseError, match=r"state addition\.direction"):
        await plan(echo, tmp_path, interventions=[spread])
    with pytest.raises(DoseError, match=r"state addition\.dose"):
        await plan(echo, tmp_path, interventions=[spread], addition={"direction": "cheer"})
    stated = {"direction": "cheer", "dose": 0.25}
    *_, added = await plan(echo, tmp_path, interventions=[spread], addition=stated)
    assert added.dose == pytest.approx(0.25)
    assert added.note == "dose stated in the suite"
    *_, left_out = await plan(echo, tmp_path, interventions=[spread], addition={"omit": "no axis"})
    assert left_out.steering == {}
    assert left_out.note == "left out: no axis"


async def test_a_map_without_a_shift_says_what_to_state(
    echo: AsyncCoxswain, tmp_path: Path
) -> None:
    flat = {"basis": [UNIT], "offset": [0.5], "map": [UNIT[::-1]], "shift": [0.0] * len(UNIT)}
    await echo.directions.create(
        name="eraser", kind="transport", site="resid_post", layers=[1], tensors=flat
    )
    item = {"operation": "transport", "direction": "eraser"}
    with pytest.raises(DoseError, match=r"eraser@1 has a constant shift of 0.*state addition\."):
        await plan(echo, tmp_path, interventions=[item])


async def test_an_arm_is_written_and_read(echo: AsyncCoxswain, tmp_path: Path) -> None:
    for arm in await plan(echo, tmp_path, profile="loud"):
        assert Arm.of(arm.document()).document() == arm.document()
