"""The application over the embedded model in float32, with a few directions and a profile."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server.app import create_app
from server.auth.permissions import Permission
from server.engine.async_engine import AsyncEngine
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store
from tests.embedded_engine import start_embedded
from tests.server.api.conftest import connect, make_key

WIDTH = 256
QUESTION = [{"role": "user", "content": "How do I repair a bicycle?"}]
THINKING = [
    {"role": "system", "content": "Think between <think> and </think> before you answer."},
    *QUESTION,
]


@pytest.fixture(scope="package")
def model() -> Iterator[AsyncEngine]:
    engine = start_embedded("tiny")
    yield engine
    engine.close()


@pytest.fixture(scope="package")
def served(
    model: AsyncEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FastAPI, Store]]:
    folder = tmp_path_factory.mktemp("analysis")
    store = Store.open(folder, load=load_direction_blob, low_water_bytes=0)
    yield create_app(Settings(data_dir=folder), model, store), store
    store.close()


@pytest.fixture
async def api(served: tuple[FastAPI, Store]) -> AsyncIterator[httpx.AsyncClient]:
    app, store = served
    async with connect(app) as http:
        if not store.directions.list(None, 1).items:
            await fill(http)
        yield http


async def fill(http: httpx.AsyncClient) -> None:
    draw = random.Random(5)
    weights = [draw.gauss(0, 0.1) for _ in range(WIDTH)]
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("directions", _direction("push", "vector", [2], vector=weights)),
        ("directions", _direction("probe", "probe", [5], "final", weight=weights, bias=[0.25])),
        ("directions", _direction("wall", "vector", [2], requires=["restricted"], vector=weights)),
        (
            "profiles",
            {
                "name": "pushed",
                "publish": True,
                "interventions": [{"operation": "add", "direction": "push", "strength": 1.5}],
                "monitors": [{"direction": "push"}],
            },
        ),
    ]
    for path, body in bodies:
        response = await http.post(f"/v1/steering/{path}", json=body)
        assert response.status_code == 201, response.text


def _direction(
    name: str, kind: str, layers: list[int], site: str = "resid_post", **fields: Any
) -> dict[str, Any]:
    requires = fields.pop("requires", [])
    return {
        "name": name,
        "kind": kind,
        "site": site,
        "layers": layers,
        "requires": requires,
        "tensors": fields,
    }


async def analyse(
    http: httpx.AsyncClient, what: str, body: dict[str, Any], status: int = 200
) -> dict[str, Any]:
    response = await http.post(f"/v1/steering/analyze/{what}", json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer if status == 200 else answer["error"]


def closed_app(served: tuple[FastAPI, Store]) -> FastAPI:
    """The same with keys: an application made once keys exist asks for them."""
    app, store = served
    make_key(store, Permission.READ)
    return create_app(Settings(), app.state.services.engine, store)
