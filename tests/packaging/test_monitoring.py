"""Prometheus and Grafana ask for metrics that the server has."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from server.engine.outputs import EngineStats, StepSeconds
from server.metrics import METRIC_PREFIX, Metrics
from tests.source_tree import ROOT

_DEPLOY = ROOT / "deploy"
_DASHBOARD = _DEPLOY / "grafana" / "dashboards" / "coxswain.json"
_STATS = EngineStats(
    num_requests_running=0,
    num_requests_waiting=0,
    kv_cache_usage_ratio=0.0,
    num_preemptions=0,
    prefix_cache_queries=0,
    prefix_cache_hits=0,
    num_drafted_tokens=0,
    num_accepted_tokens=0,
    num_live_edits=0,
    step_seconds=StepSeconds(),
    steps_by_mode={},
    seconds_since_progress=0.0,
    is_healthy=True,
    is_draining=False,
)


@pytest.fixture(scope="module")
def names() -> set[str]:
    return set(Metrics(lambda: _STATS, is_auth_disabled=True).names())


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_DASHBOARD.read_text())["panels"]
    return found


def _asked(panels: list[dict[str, Any]]) -> set[str]:
    expressions = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    found = re.findall(rf"\b{METRIC_PREFIX}\w+", expressions)
    return {re.sub("_(bucket|count)$", "", name) for name in found}


def test_every_metric_of_the_dashboard_exists(
    panels: list[dict[str, Any]], names: set[str]
) -> None:
    assert _asked(panels)
    assert _asked(panels) <= names


def test_every_metric_is_on_the_dashboard(panels: list[dict[str, Any]], names: set[str]) -> None:
    assert names <= _asked(panels)


def test_panels_do_not_overlap(panels: list[dict[str, Any]]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_panels_use_the_provisioned_source(panels: list[dict[str, Any]]) -> None:
    path = _DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    [source] = yaml.safe_load(path.read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


def test_the_dashboards_are_where_grafana_looks() -> None:
    path = _DEPLOY / "grafana" / "provisioning" / "dashboards" / "coxswain.yml"
    [provider] = yaml.safe_load(path.read_text())["providers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = compose["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in mounts


def test_prometheus_asks_the_server_with_its_key() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    [job] = yaml.safe_load((_DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    assert target.split(":")[0] in compose["services"]
    key = job["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert key in compose["services"]["prometheus"]["secrets"]
