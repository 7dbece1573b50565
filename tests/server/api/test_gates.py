"""Gates over HTTP: what an answer says of them, and that their directions are kept like others."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server.app import create_app
from server.auth.permissions import Permission
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect, make_key, profile, vector
from .echo_engine import EchoEngine
from .test_streams import read

CHAT = "/v1/chat/completions"
LATE = {"tokens": ["last_prompt", "generated"]}
PER_REQUEST = {"per": "request", "direction": "shouting", "layer": 2, "threshold": 0.5}
PER_TOKEN = {"per": "token", "direction": "shouting", "threshold": 0.5}


def gated(gate: dict[str, Any], **fields: Any) -> dict[str, Any]:
    scope = LATE if gate["per"] == "request" else {"tokens": "all"}
    return {"operation": "add", "direction": "cheer", "scope": scope, "gate": gate, **fields}


async def create(client: httpx.AsyncClient) -> None:
    for name in ("cheer", "shouting"):
        response = await client.post("/v1/steering/directions", json=vector(name))
        assert response.status_code == 201, response.text
    body = profile("calming", interventions=[gated(PER_REQUEST)])
    response = await client.post("/v1/steering/profiles", json=body)
    assert response.status_code == 201, response.text


@pytest.mark.parametrize(("text", "is_open"), [("hi!", True), ("hi", False)])
async def test_an_answer_says_whether_the_gate_was_open(
    client: httpx.AsyncClient, text: str, is_open: bool
) -> None:
    await create(client)
    answer = (await client.post(CHAT, json=chat(text, steering={"profile": "calming"}))).json()
    [applied] = answer["steering"]["applied"]
    assert applied["gate"] == {
        "per": "request",
        "direction": "shouting@1",
        "measure": "projection",
        "opens": "above",
        "threshold": 0.5,
        "site": "resid_post",
        "layers": [2],
        "states": [{"index": 0, "open": is_open, "score": float(is_open)}],
    }
    steered = answer["steering"]["steered_tokens"]
    assert (steered["prompt"], steered["generated"] > 0) == (int(is_open), is_open)
    assert answer["choices"][0]["message"]["content"] == (text.upper() if is_open else text)


async def test_every_choice_has_its_state_and_a_stream_tells_them_last(
    client: httpx.AsyncClient,
) -> None:
    await create(client)
    interventions = [
        gated(PER_REQUEST),
        gated(PER_TOKEN),
        {"operation": "add", "direction": "cheer"},
    ]
    body = chat("hi!", n=2, steering={"interventions": interventions})
    whole = (await client.post(CHAT, json=body)).json()["steering"]
    *_, last, done = await read(client, CHAT, body)
    assert done == "[DONE]"
    assert last["steering"]["applied"] == whole["applied"]
    latched, per_token, plain = whole["applied"]
    assert latched["gate"]["states"] == [{"index": i, "open": True, "score": 1.0} for i in (0, 1)]
    none = {"prompt": 0, "generated": 0}
    assert per_token["gate"]["states"] == [
        {"index": i, "open": False, "open_tokens": none} for i in (0, 1)
    ]
    assert "gate" not in plain


async def test_closed_gates_are_no_failure_but_forgotten_steering_is(
    client: httpx.AsyncClient, engine: EchoEngine
) -> None:
    await create(client)
    engine.faults.forgets_steering = True
    for interventions, status in (
        ([gated(PER_TOKEN)], 200),
        ([gated({**PER_REQUEST, "threshold": 9.0})], 200),
        ([gated(PER_REQUEST)], 500),
        ([gated(PER_TOKEN), {"operation": "add", "direction": "cheer"}], 500),
    ):
        body = chat("hi!", steering={"interventions": interventions})
        assert (await client.post(CHAT, json=body)).status_code == status, interventions


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({**PER_REQUEST, "direction": "nobody"}, "direction_not_found", "gate.direction"),
    ({**PER_REQUEST, "layer": 9}, "layer_out_of_range", "gate.layer"),
    ({**PER_REQUEST, "measure": "logit"}, "incompatible_operation", "gate.direction"),
    ({**PER_REQUEST, "measure": "cosine", "threshold": 1.5}, "invalid_field", "gate.threshold"),
    ({**PER_REQUEST, "steepness": 2}, "invalid_field", "gate.steepness"),
    ({**PER_TOKEN, "token": "mean"}, "invalid_field", "gate.token"),
    ({**PER_TOKEN, "layer": 3}, "invalid_field", "gate.layer"),
    ({**PER_TOKEN, "site": "final"}, "layer_out_of_range", "gate.layer"),
    ({**PER_TOKEN, "measure": "condition"}, "invalid_field", "gate.measure"),
    ({**PER_TOKEN, "per": "answer"}, "invalid_field", "gate.per"),
]


@pytest.mark.parametrize(("gate", "code", "param"), BAD, ids=[f"{p}-{c}" for _, c, p in BAD])
async def test_bad_gates_name_the_field(
    client: httpx.AsyncClient, gate: dict[str, Any], code: str, param: str
) -> None:
    await create(client)
    per = gate["per"] if gate["per"] in ("request", "token") else "token"
    intervention = {**gated({**gate, "per": per}), "gate": gate}
    body = chat(steering={"interventions": [intervention]})
    response = await client.post(CHAT, json=body)
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, f"steering.interventions[0].{param}")
    assert response.status_code == (404 if code == "direction_not_found" else 400)
    saved = await client.post(
        "/v1/steering/profiles", json=profile("bad", interventions=[intervention])
    )
    assert saved.json()["error"]["param"] == f"interventions[0].{param}"


async def test_a_gate_per_request_cannot_reach_back_into_the_prompt(
    client: httpx.AsyncClient,
) -> None:
    await create(client)
    for scope in ({"tokens": "all"}, {"windows": [[0, 4]]}, {"prompt_indices": [-2]}):
        body = chat(steering={"interventions": [gated(PER_REQUEST, scope=scope)]})
        error = (await client.post(CHAT, json=body)).json()["error"]
        assert (error["code"], error["param"]) == (
            "invalid_field",
            "steering.interventions[0].scope",
        )


async def test_a_gate_needs_a_prompt_to_be_decided_on(client: httpx.AsyncClient) -> None:
    await create(client)
    steering = {"interventions": [gated(PER_REQUEST)], "prompt_tokens": 0}
    body = {"model": "echo", "prompt": "hi", "steering": steering}
    error = (await client.post("/v1/completions", json=body)).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_field", "steering.prompt_tokens")


async def test_a_gate_s_direction_is_pinned_and_in_use(client: httpx.AsyncClient) -> None:
    await create(client)
    saved = (await client.get("/v1/steering/profiles/calming")).json()
    assert saved["interventions"][0]["gate"]["direction"] == "shouting@1"
    refused = await client.delete("/v1/steering/directions/shouting")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "in_use")
    newer = vector("shouting", tensors={"vector": [0, 1.0, 0, 0, 0, 0, 0, 0]})
    await client.post("/v1/steering/directions", json=newer)
    again = profile("calming", interventions=[gated(PER_REQUEST)])
    changed = (await client.post("/v1/steering/profiles", json=again)).json()
    assert (changed["version"], changed["fingerprint"] != saved["fingerprint"]) == (2, True)


async def test_a_gate_s_direction_asks_for_its_scopes(
    settings: Settings, engine: EchoEngine, store: Store
) -> None:
    admin = make_key(store, *Permission)
    app: FastAPI = create_app(settings, engine, store)  # type: ignore[arg-type]
    async with connect(app, admin) as http:
        await http.post("/v1/steering/directions", json=vector())
        await http.post("/v1/steering/directions", json=vector("shouting", requires=["restricted"]))
        body = profile("calming", interventions=[gated(PER_REQUEST)])
        saved = await http.post("/v1/steering/profiles", json=body)
        assert saved.json()["requires"] == ["restricted"], "inherited from its gate's direction"
    key = make_key(store, Permission.CHAT, Permission.INLINE)
    async with connect(app, key) as http:
        for steering in ({"profile": "calming"}, {"interventions": [gated(PER_REQUEST)]}):
            refused = await http.post(CHAT, json=chat("hi", steering=steering))
            assert refused.status_code == 403, refused.text


async def test_capabilities_list_what_gates_can_be(client: httpx.AsyncClient) -> None:
    gates = (await client.get("/v1/capabilities")).json()["gates"]
    assert gates["per"] == ["request", "token"]
    assert gates["measures"] == ["projection", "cosine", "condition", "logit", "probability"]
    assert (gates["opens"], gates["tokens"]) == (["above", "below"], ["last", "mean"])
