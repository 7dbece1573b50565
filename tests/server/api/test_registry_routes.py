"""Directions, profiles and aliases through their whole life."""

from __future__ import annotations

import base64
import struct

import httpx
import pytest
import torch
from safetensors.torch import load, save

from server.store import Store
from steering.directions import Direction, DirectionKind
from steering.formats import dump_control_vector
from steering.sites import Site

from .conftest import chat, create_cheerful, profile, vector
from .test_bad_uploads import upload

DIRECTIONS = "/v1/steering/directions"
PROFILES = "/v1/steering/profiles"
ALIASES = "/v1/steering/aliases"


async def test_equal_bytes_are_one_version_and_new_bytes_a_new_one(
    client: httpx.AsyncClient,
) -> None:
    first = await client.post(DIRECTIONS, json=vector(tags=["a"], provenance={"method": "hand"}))
    assert first.status_code == 201
    body = first.json()
    assert body["object"] == "steering.direction"
    assert (body["name"], body["version"], body["kind"]) == ("cheer", 1, "vector")
    assert (body["site"], body["layers"], body["width"]) == ("resid_post", [1], 8)
    assert body["norms"] == {"vector": 1.0}
    assert body["tags"] == ["a"]
    assert body["warnings"] == []
    again = await client.post(DIRECTIONS, json=vector(tags=["b"]))
    assert (again.status_code, again.json()["version"]) == (200, 1)
    data = base64.b64encode(struct.pack("<8f", 1, *[0] * 7)).decode()
    tensors = {"vector": {"dtype": "F32", "shape": [8], "data": data}}
    as_bytes = await client.post(DIRECTIONS, json=vector(tensors=tensors))
    assert (as_bytes.status_code, as_bytes.json()["version"]) == (200, 1)
    bare = await client.post(DIRECTIONS, json=vector(tensors=[1.0, *[0.0] * 7]))
    assert (bare.status_code, bare.json()["version"]) == (200, 1)
    other = await client.post(DIRECTIONS, json=vector(tensors={"vector": [9.0] * 8}))
    assert (other.status_code, other.json()["version"]) == (201, 2)
    assert "times the residual norm" in other.json()["warnings"][0]


async def test_only_a_vector_s_tensor_may_stand_by_itself(client: httpx.AsyncClient) -> None:
    body = vector(kind="basis", tensors=[[1.0, *[0.0] * 7]])
    error = (await client.post(DIRECTIONS, json=body)).json()["error"]
    assert (error["param"], error["code"]) == ("tensors", "invalid_field")
    assert "expected an object" in error["message"]
    shape = vector(tensors=[1.0, 2.0])
    assert (await client.post(DIRECTIONS, json=shape)).json()["error"]["code"] == "shape_mismatch"


async def test_a_file_comes_back_byte_for_byte(client: httpx.AsyncClient) -> None:
    data = save({"vector": torch.ones(8, dtype=torch.bfloat16)}, {"made": "elsewhere"})
    metadata = {"name": "up", "kind": "vector", "site": "resid_post", "layers": [0, 2]}
    response = await upload(client, data, metadata)
    assert response.status_code == 201, response.text
    assert (await client.get(f"{DIRECTIONS}/up/tensors")).content == data
    assert (await client.get(f"{DIRECTIONS}/up@1/tensors")).content == data
    assert (await upload(client, data, metadata)).status_code == 200


async def test_a_control_vector_says_itself_what_it_is(client: httpx.AsyncClient) -> None:
    rows = {f"vector.{layer}": torch.full((8,), float(layer)) for layer in (1, 3)}
    direction = Direction("x", DirectionKind.VECTOR, Site.RESID_POST, (1, 3), rows)
    data = dump_control_vector(direction, model_hint="llama")
    response = await upload(client, data, {"name": "gguf"})
    assert response.status_code == 201, response.text
    assert response.json()["layers"] == [1, 3]
    tensors = load((await client.get(f"{DIRECTIONS}/gguf/tensors")).content)
    assert all(torch.equal(tensors[name], row) for name, row in rows.items())


async def test_listings_are_paged_by_cursor(client: httpx.AsyncClient) -> None:
    for index in range(5):
        await client.post(DIRECTIONS, json=vector(f"d{index}", tags=["odd"] if index % 2 else []))
    names, cursor = [], None
    while True:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await client.get(DIRECTIONS, params=query)).json()
        names += [item["name"] for item in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] is (cursor is not None)
        if cursor is None:
            break
    assert names == [f"d{index}" for index in range(5)]
    odd = (await client.get(DIRECTIONS, params={"tag": "odd", "kind": "vector"})).json()
    assert [item["name"] for item in odd["data"]] == ["d1", "d3"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"limit": "0"}, 400),
        ({"limit": "201"}, 400),
        ({"limit": "x"}, 400),
        ({"cursor": "zzz"}, 400),
        ({"kind": "wave"}, 400),
        ({"site": "nowhere"}, 422),
        ({"colour": "red"}, 400),
    ],
)
async def test_a_bad_query_is_named(
    client: httpx.AsyncClient, query: dict[str, str], status: int
) -> None:
    response = await client.get(DIRECTIONS, params=query)
    assert response.status_code == status
    assert response.json()["error"]["param"] == next(iter(query))


async def test_a_used_direction_cannot_be_archived(client: httpx.AsyncClient) -> None:
    await create_cheerful(client)
    refused = await client.delete(f"{DIRECTIONS}/cheer")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "in_use"
    assert refused.json()["error"]["problems"] == [{"used_by": "cheerful@1"}]
    assert (await client.delete(f"{PROFILES}/cheerful")).json()["versions"] == [1]
    assert (await client.delete(f"{DIRECTIONS}/cheer")).json()["versions"] == [1]
    assert (await client.get(f"{DIRECTIONS}/cheer")).status_code == 404
    archived = (await client.get(f"{DIRECTIONS}/cheer@1")).json()
    assert archived["archived_at"] is not None


async def test_a_change_may_depend_on_what_was_seen(client: httpx.AsyncClient) -> None:
    await create_cheerful(client)
    etag = (await client.get(f"{PROFILES}/cheerful")).headers["etag"]
    changed = profile(description="new")
    first = await client.post(PROFILES, json=changed, headers={"if-match": etag})
    assert first.status_code == 201
    second = await client.post(PROFILES, json=profile(), headers={"if-match": etag})
    assert (second.status_code, second.json()["error"]["code"]) == (412, "precondition_failed")


async def test_a_profile_pins_versions_and_freezes_norms(client: httpx.AsyncClient) -> None:
    await client.post(DIRECTIONS, json=vector())
    item = {"operation": "add", "direction": "cheer", "unit": "resid", "layers": [1, 2]}
    response = await client.post(PROFILES, json=profile(interventions=[item]))
    body = response.json()
    assert response.status_code == 201, body
    assert body["interventions"][0]["direction"] == "cheer@1"
    assert body["resid_norms"] == {"resid_post.1": 3.0, "resid_post.2": 4.0}
    assert (body["status"], body["version"]) == ("published", 1)
    assert (await client.post(PROFILES, json=profile(interventions=[item]))).status_code == 200


async def test_a_draft_serves_nobody_until_it_is_published(client: httpx.AsyncClient) -> None:
    await create_cheerful(client)
    draft = profile(publish=False, description="v2", max_strength=2)
    assert (await client.post(PROFILES, json=draft)).json()["status"] == "draft"
    answer = await client.post("/v1/chat/completions", json=chat(model="echo:cheerful"))
    assert answer.json()["steering"]["version"] == 1
    assert (await client.post(f"{PROFILES}/cheerful/publish")).json()["version"] == 2
    answer = await client.post("/v1/chat/completions", json=chat(model="echo:cheerful"))
    assert answer.json()["steering"]["version"] == 2
    versions = (await client.get(f"{PROFILES}/cheerful/versions")).json()["data"]
    assert [item["version"] for item in versions] == [2, 1]


async def test_validation_returns_the_plan_or_every_problem(client: httpx.AsyncClient) -> None:
    await client.post(DIRECTIONS, json=vector(layers=(1, 2)))
    good = profile(interventions=[{"operation": "add", "direction": "cheer", "strength": -3}])
    plan = (await client.post(f"{PROFILES}:validate", json=good)).json()
    assert plan["is_valid"] is True
    [item] = plan["interventions"]
    assert (item["layers"], item["site"], item["strength"]) == ([1, 2], "resid_post", -3.0)
    assert item["doses"] == {"1": 1.0, "2": 0.75}
    assert plan["dose"] == pytest.approx(1.75)
    [warning] = plan["warnings"]
    assert "at 2 layers add up to 1.75" in warning
    shared = {**good["interventions"][0], "distribute": True}
    plan = (
        await client.post(f"{PROFILES}:validate", json=good | {"interventions": [shared]})
    ).json()
    assert plan["interventions"][0]["strength"] == -1.5
    assert plan["dose"] == pytest.approx(0.875)
    assert len(plan["warnings"]) == 1
    light = good | {"interventions": [shared | {"strength": 1}]}
    assert (await client.post(f"{PROFILES}:validate", json=light)).json()["warnings"] == []
    bad = {
        "name": "Bad!",
        "max_strength": -1,
        "requires": ["root"],
        "interventions": [
            {"operation": "fly", "direction": "cheer"},
            {"operation": "add", "direction": "nope"},
            {"operation": "add", "direction": "cheer"},
            {"operation": "add", "direction": "cheer", "layers": [7]},
            5,
        ],
        "monitors": [{"direction": "cheer", "site": "resid_mid"}],
    }
    response = await client.post(f"{PROFILES}:validate", json=bad)
    assert response.status_code == 422
    error = response.json()["error"]
    assert [problem["param"] for problem in error["problems"]] == [
        "name",
        "max_strength",
        "interventions[0].operation",
        "interventions[1].direction",
        "interventions[3].layers",
        "interventions[4]",
        "monitors[0].site",
    ]
    assert error["param"] == "name"
    assert "6 more" in error["message"]
    assert (await client.get(PROFILES)).json()["data"] == []


async def test_an_empty_profile_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post(PROFILES, json={"name": "empty"})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "interventions"


async def test_an_alias_moves_between_versions(client: httpx.AsyncClient) -> None:
    await create_cheerful(client)
    await client.post(PROFILES, json=profile(description="v2"))
    for target, version in (("cheerful@1", 1), ("cheerful", 2)):
        moved = await client.put(f"{ALIASES}/live", json={"profile": target})
        assert (moved.status_code, moved.json()["profile"]) == (200, target)
        answer = await client.post("/v1/chat/completions", json=chat(model="echo:live"))
        assert answer.json()["steering"]["version"] == version
        assert answer.headers["x-steering-applied"] == f"cheerful@{version}"
    assert [a["alias"] for a in (await client.get(ALIASES)).json()["data"]] == ["live"]
    assert (await client.delete(f"{ALIASES}/live")).status_code == 200
    assert (await client.get(f"{ALIASES}/live")).status_code == 404


@pytest.mark.parametrize(
    ("alias", "target", "status", "code"),
    [
        ("live", "nope", 404, "profile_not_found"),
        ("cheerful", "cheerful", 409, "name_taken"),
        ("live", "draft", 409, "not_published"),
        ("live", "Bad!", 422, "invalid_field"),
    ],
)
async def test_a_bad_alias_is_refused(
    client: httpx.AsyncClient, alias: str, target: str, status: int, code: str
) -> None:
    await create_cheerful(client)
    await client.post(PROFILES, json=profile("draft", publish=False))
    response = await client.put(f"{ALIASES}/{alias}", json={"profile": target})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_damaged_files_make_a_profile_unavailable_and_nothing_else(
    client: httpx.AsyncClient, store: Store
) -> None:
    await create_cheerful(client)
    await client.post(DIRECTIONS, json=vector("other", tensors={"vector": [2.0] * 8}))
    await client.post(PROFILES, json=profile("fine", "other"))
    record = store.directions.get("cheer")
    path = store.blobs._path(record.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    store.verify()
    bad = await client.post("/v1/chat/completions", json=chat(model="echo:cheerful"))
    assert (bad.status_code, bad.json()["error"]["code"]) == (409, "profile_unavailable")
    good = await client.post("/v1/chat/completions", json=chat(model="echo:fine"))
    assert good.status_code == 200
    assert (await client.post(DIRECTIONS, json=vector())).status_code == 200
    again = await client.post("/v1/chat/completions", json=chat(model="echo:cheerful"))
    assert again.status_code == 200, again.text
