"""`/v1/steering/jobs`: shapes, scopes, errors and events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server.app import create_app
from server.auth.permissions import Permission
from server.registry.upload import Uploader
from server.settings import Settings
from server.store import SYSTEM, JobSpec, Store
from tests.server.jobs.fake_kinds import Steps, made_direction

from .asgi_call import call
from .conftest import connect, make_key
from .echo_engine import EchoEngine

JOBS = "/v1/steering/jobs"


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
async def app(
    settings: Settings, engine: EchoEngine, store: Store, steps: Steps
) -> AsyncIterator[FastAPI]:
    app = create_app(settings, engine, store, kinds=[steps.kind])  # type: ignore[arg-type]
    await app.state.services.jobs.start()
    yield app
    await app.state.services.jobs.stop()


async def create(client: httpx.AsyncClient, **request: Any) -> dict[str, Any]:
    response = await client.post(JOBS, json={"kind": "steps", "steps": 2, **request})
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"{JOBS}/{job['id']}"
    return job


async def events(client: httpx.AsyncClient, job: dict[str, Any], **headers: str) -> list[Any]:
    """The stream to its end, checked for its form."""
    response = await client.get(f"{JOBS}/{job['id']}/events", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    *blocks, done, empty = response.text.split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    found = []
    for block in blocks:
        if block.startswith(":"):
            continue
        number, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert number == f"id: {found[-1]['number']}"
    return found


async def test_a_job_from_its_request_to_its_result(client: httpx.AsyncClient) -> None:
    job = await create(client, save="made", use=None)
    assert (job["object"], job["kind"], job["status"]) == ("steering.job", "steps", "queued")
    assert (job["progress"], job["result"], job["error"]) == (0.0, None, None)
    seen = await events(client, job)
    assert [e["number"] for e in seen] == list(range(1, len(seen) + 1))
    assert {e["job"] for e in seen} == {job["id"]}
    assert (seen[-1]["status"], seen[-1]["progress"]) == ("succeeded", 1.0)
    done = (await client.get(f"{JOBS}/{job['id']}")).json()
    assert done["result"] == {"total": 1, "direction": "made@1"}
    assert done["request"] == {"steps": 2, "save": "made"}, "as sent, nulls left out"
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    stored = (await client.get("/v1/steering/directions/made@1")).json()
    assert stored["provenance"]["job"] == job["id"]


async def test_a_failed_job_has_the_error_body(client: httpx.AsyncClient, steps: Steps) -> None:
    steps.errors["bug"] = RuntimeError("secret")
    job = await create(client, fail_at=0, error="bug")
    assert (await events(client, job))[-1]["status"] == "failed"
    failed = (await client.get(f"{JOBS}/{job['id']}")).json()
    assert set(failed["error"]) == {"message", "type", "param", "code"}
    assert failed["error"]["code"] == "server_error"
    assert "secret" not in json.dumps(failed)


async def test_events_go_on_after_the_last_one_seen(client: httpx.AsyncClient) -> None:
    job = await create(client)
    seen = await events(client, job)
    assert await events(client, job, **{"Last-Event-ID": "2"}) == seen[2:]
    assert await events(client, job, **{"Last-Event-ID": str(len(seen))}) == []
    for bad in ("-1", "x", str(len(seen) + 1), "9" * 40, ""):
        response = await client.get(f"{JOBS}/{job['id']}/events", headers={"Last-Event-ID": bad})
        assert response.status_code == 400, bad
        assert response.json()["error"]["param"] == "Last-Event-ID"


async def test_a_watcher_that_leaves_does_not_end_the_job(
    app: FastAPI, client: httpx.AsyncClient, steps: Steps
) -> None:
    job = await create(client, stop_at=1)
    left = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        if b"step 1" in message.get("body", b""):
            left.set()

    await call(app, None, send, left, path=f"{JOBS}/{job['id']}/events")
    assert (await client.get(f"{JOBS}/{job['id']}")).json()["status"] == "running"
    steps.go.set()
    assert (await events(client, job))[-1]["status"] == "succeeded"


async def test_cancelling_resuming_and_rerunning(client: httpx.AsyncClient, steps: Steps) -> None:
    job = await create(client, stop_at=1)
    path = f"{JOBS}/{job['id']}"
    await steps.arrived.wait()
    active = await client.post(f"{path}/resume")
    assert (active.status_code, active.json()["error"]["code"]) == (409, "job_active")
    for _ in range(2):
        cancelled = await client.delete(path)
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    steps.go.set()
    resumed = await client.post(f"{path}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
    assert resumed.headers["location"] == path
    await events(client, job)
    assert steps.done == [0, 1]
    for method, where in (("DELETE", path), ("POST", f"{path}/resume")):
        finished = await client.request(method, where)
        assert (finished.status_code, finished.json()["error"]["code"]) == (409, "job_finished")
    again = await client.post(f"{path}/rerun")
    assert again.status_code == 202
    assert again.json()["rerun_of"] == job["id"]
    await events(client, again.json())


async def test_a_job_asked_for_twice_under_one_key_is_queued_once(
    client: httpx.AsyncClient, steps: Steps
) -> None:
    steps.go.set()
    asked, named = {"kind": "steps", "steps": 2}, {"idempotency-key": "nightly"}
    first, again = [await client.post(JOBS, json=asked, headers=named) for _ in range(2)]
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["location"] == first.headers["location"]
    await events(client, first.json())
    rerun = [
        await client.post(f"{JOBS}/{first.json()['id']}/rerun", headers={"idempotency-key": "more"})
        for _ in range(2)
    ]
    assert rerun[0].json() == rerun[1].json()
    await events(client, rerun[0].json())
    assert len((await client.get(JOBS)).json()["data"]) == 2


async def test_the_list_is_filtered_and_paged(client: httpx.AsyncClient, steps: Steps) -> None:
    running = await create(client, stop_at=0)
    await steps.arrived.wait()
    waiting = [await create(client) for _ in range(3)]
    page = (await client.get(JOBS, params={"status": "queued", "limit": 2})).json()
    assert [j["id"] for j in page["data"]] == [waiting[2]["id"], waiting[1]["id"]]
    assert "request" not in page["data"][0]
    rest = {"status": "queued", "limit": 2, "cursor": page["next_cursor"]}
    page = (await client.get(JOBS, params=rest)).json()
    assert ([j["id"] for j in page["data"]], page["has_more"]) == ([waiting[0]["id"]], False)
    everything = (await client.get(JOBS, params={"kind": "steps"})).json()["data"]
    assert (len(everything), everything[-1]["id"]) == (4, running["id"])
    assert (await client.get(JOBS, params={"kind": "fit"})).json()["data"] == []
    for query, param in (({"status": "x"}, "status"), ({"x": 1}, "x"), ({"limit": 0}, "limit")):
        bad = await client.get(JOBS, params=query)
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, param)


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "kind"),
    ({"kind": 3}, 400, "kind"),
    ({"kind": "nothing"}, 422, "kind"),
    ({"kind": "steps"}, 422, "steps"),
    ({"kind": "steps", "steps": 1, "requires": "nothing"}, 422, "requires[0]"),
    ({"kind": "steps", "steps": 1, "requires": [1]}, 422, "requires"),
    ({"kind": "steps", "steps": 1, "more": 1}, 422, "more"),
]


@pytest.mark.parametrize(("body", "status", "param"), BAD, ids=[str(b) for b, _, _ in BAD])
async def test_a_bad_request_names_its_field_and_stores_nothing(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, param: str
) -> None:
    response = await client.post(JOBS, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert (await client.get(JOBS)).json()["data"] == []


@pytest.mark.parametrize("suffix", ["", "/events"])
async def test_an_unknown_job_is_404(client: httpx.AsyncClient, suffix: str) -> None:
    for job_id in ("job-" + "0" * 32, "x", "..%2f"):
        response = await client.get(f"{JOBS}/{job_id}{suffix}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] in ("job_not_found", "not_found")


async def test_a_full_queue_is_429(
    settings: Settings, engine: EchoEngine, store: Store, steps: Steps
) -> None:
    few = settings.model_copy(update={"max_queued_jobs": 1})
    app = create_app(few, engine, store, kinds=[steps.kind])  # type: ignore[arg-type]
    async with connect(app) as client:  # its jobs are not begun
        await create(client)
        full = await client.post(JOBS, json={"kind": "steps", "steps": 1})
        assert (full.status_code, full.json()["error"]["code"]) == (429, "job_queue_full")
        assert int(full.headers["retry-after"]) > 0
        assert "coxswain_num_jobs_waiting 1.0" in (await client.get("/metrics")).text


async def test_the_body_is_bounded(client: httpx.AsyncClient) -> None:
    huge = await client.post(JOBS, json={"kind": "steps", "steps": 1, "save": "x" * 2**20})
    assert huge.status_code == 413


async def test_restricted_outputs_need_the_scope(
    settings: Settings, engine: EchoEngine, store: Store, steps: Steps
) -> None:
    admin = make_key(store, Permission.ADMIN)
    trusted = make_key(store, Permission.ADMIN, Permission.RESTRICTED)
    app = create_app(settings, engine, store, kinds=[steps.kind])  # type: ignore[arg-type]
    body = {"kind": "steps", "steps": 1, "requires": ["restricted"]}
    async with connect(app, admin) as client, connect(app, trusted) as other:
        assert (await client.post(JOBS, json=body)).status_code == 403
        job = (await other.post(JOBS, json=body)).json()
        assert job["requires"] == ["restricted"]
        assert (await client.post(f"{JOBS}/{job['id']}/rerun")).status_code == 403
        assert (await client.delete(f"{JOBS}/{job['id']}")).status_code == 200
        assert (await client.post(f"{JOBS}/{job['id']}/resume")).status_code == 403
        assert (await other.post(f"{JOBS}/{job['id']}/resume")).status_code == 202
        actions = (await other.get("/v1/admin/audit")).json()["data"]
    assert [e["action"] for e in actions[:3]] == ["job.resume", "job.cancel", "job.create"]
    assert actions[1]["subject"] == f"job {job['id']}"


async def test_what_a_named_direction_requires_is_asked_of_the_key(
    settings: Settings, engine: EchoEngine, store: Store, steps: Steps
) -> None:
    locked = replace(made_direction("locked"), requires=("restricted",))
    Uploader(store, engine.info().spec).from_direction(locked, by=SYSTEM)
    admin = make_key(store, Permission.ADMIN, Permission.INLINE, Permission.CHAT)
    trusted = make_key(store, Permission.ADMIN, Permission.RESTRICTED)
    app = create_app(settings, engine, store, kinds=[steps.kind])  # type: ignore[arg-type]
    body = {"kind": "steps", "steps": 1, "use": "locked"}
    inline = {"interventions": [{"operation": "add", "direction": "locked"}]}
    messages = [{"role": "user", "content": "Hi"}]
    chat = {"model": engine.info().model_name, "messages": messages, "steering": inline}
    async with connect(app, admin) as client, connect(app, trusted) as other:
        refused = await client.post(JOBS, json=body)
        beside = await client.post("/v1/chat/completions", json=chat)
        assert (refused.status_code, beside.status_code) == (403, 403)
        error, same = refused.json()["error"], beside.json()["error"]
        assert error["param"] == "use"
        assert {**error, "param": "steering"} == same
        missing = await other.post(JOBS, json={**body, "use": "lost"})
        assert (missing.status_code, missing.json()["error"]["param"]) == (404, "use")
        assert (await other.get(JOBS)).json()["data"] == []
        assert (await other.post(JOBS, json=body)).json()["requires"] == ["restricted"]


async def test_a_job_of_another_model_is_not_resumed(
    client: httpx.AsyncClient, store: Store
) -> None:
    job = store.jobs.create(JobSpec("steps", {"steps": 1}, "other"), by=SYSTEM, max_queued=9)
    await client.delete(f"{JOBS}/{job.id}")
    response = await client.post(f"{JOBS}/{job.id}/resume")
    assert (response.status_code, response.json()["error"]["code"]) == (422, "fingerprint_mismatch")


async def test_capabilities_and_metrics_know_jobs(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/capabilities")).json()["jobs"]
    assert [kind["kind"] for kind in listed] == ["steps"]
    assert listed[0]["options"] == {"steps": "how far, at most 99"}
    await events(client, await create(client))
    metrics = (await client.get("/metrics")).text
    while 'coxswain_jobs_total{kind="steps",status="succeeded"} 1.0' not in metrics:
        metrics = (await client.get("/metrics")).text
    assert 'coxswain_job_seconds_count{kind="steps"} 1.0' in metrics
    assert "coxswain_num_jobs_running" in metrics
