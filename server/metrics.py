"""The server's metrics, in a registry of its own.

Names are vLLM's with the prefix `coxswain_`, so that public dashboards carry over by replacing the
prefix. Labels are profiles, codes and finish reasons: never text of users, never keys. No metric
has more than `MAX_SERIES` label sets; what comes later is counted under `OTHER`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .engine.outputs import EngineStats, StepSeconds

METRIC_PREFIX: Final = "coxswain_"
MAX_SERIES: Final = 256
"""Label sets of one metric, so that a scrape stays small however many profiles there are."""

OTHER: Final = "_other"
"""The value of every label beyond; no profile can be called so."""

_M = TypeVar("_M", bound=MetricWrapperBase)

_TTFT_BUCKETS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_ITL_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_LATENCY_BUCKETS: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_JOB_BUCKETS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_GAUGES: Final = {
    "num_requests_running": "Requests holding keys and values.",
    "num_requests_waiting": "Requests in the queue.",
    "kv_cache_usage_ratio": "Used blocks of the KV cache over all.",
    "num_live_edits": "Columns of the steering tables in use.",
    "seconds_since_progress": "Since the engine last got anywhere, while work was queued.",
}
_COUNTERS: Final = {
    "num_preemptions": "Requests preempted.",
    "prefix_cache_queries": "Prompt tokens looked up in the prefix cache.",
    "prefix_cache_hits": "Prompt tokens found in the prefix cache.",
    "num_drafted_tokens": "Tokens guessed from a request's own text and run.",
    "num_accepted_tokens": "Guessed tokens that were the right ones.",
}


class Labelled(Generic[_M]):
    """A metric of which only the first label sets have series of their own. Thread-safe."""

    def __init__(self, metric: _M) -> None:
        self._metric = metric
        self._known: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()

    def labels(self, *values: str) -> _M:
        """The series of a label set, or the one that all later sets share."""
        with self._lock:
            if len(self._known) < MAX_SERIES:
                self._known.add(values)
            is_known = values in self._known
        return self._metric.labels(*(values if is_known else (OTHER,) * len(values)))


class Metrics:
    """The server's metrics.

    Args:
        engine_stats: Asked at each scrape.
        is_auth_disabled: Whether requests need no key.
    """

    def __init__(self, engine_stats: Callable[[], EngineStats], *, is_auth_disabled: bool) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine_stats))
        self._add_times()
        self._add_counts()
        self._add_jobs()
        self._gauge("auth_disabled", "1 when requests need no key.").set(is_auth_disabled)
        self.store_writable = self._gauge(
            "store_writable", "1 unless the last write to the store failed."
        )
        self.store_writable.set(1)

    def _add_times(self) -> None:
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            _TTFT_BUCKETS,
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds", "Between tokens of one choice.", _ITL_BUCKETS
        )
        self.request_latency = self._histogram(
            "request_latency_seconds",
            "From a request's arrival to its last token.",
            _LATENCY_BUCKETS,
        )

    def _add_counts(self) -> None:
        add = self._counter
        self.prompt_tokens = add("prompt_tokens", "Prompt tokens served.", "profile")
        self.generation_tokens = add("generation_tokens", "Tokens generated.", "profile")
        self.applied_tokens = add("applied_tokens", "Tokens an intervention acted on.", "profile")
        self.requests = add("requests", "Requests by how they ended.", "finish")
        self.rejected = add("requests_rejected", "Requests answered with an error.", "code")
        self.profile_requests = add(
            "profile_requests", "Requests by profile.", "profile", "version"
        )
        self.not_applied = Counter(
            f"{METRIC_PREFIX}not_applied",
            "Answers whose steering acted on no token; must stay 0.",
            registry=self._registry,
        )
        self.nonfinite = add("nonfinite", "Requests that ended in NaN or infinity.", "profile")

    def _add_jobs(self) -> None:
        self.jobs = self._counter("jobs", "Jobs by how they ended.", "kind", "status")
        self.job_seconds = Labelled(
            Histogram(
                f"{METRIC_PREFIX}job_seconds",
                "From a job's start to its end.",
                ["kind"],
                buckets=_JOB_BUCKETS,
                registry=self._registry,
            )
        )
        self.jobs_running = self._gauge("num_jobs_running", "Jobs this server runs.")
        self.jobs_waiting = self._gauge("num_jobs_waiting", "Jobs in the queue of all servers.")

    def job_ended(self, kind: str, status: str, seconds: float | None) -> None:
        """Count the end of a job; `seconds` since it began, None where it never did."""
        self.jobs.labels(kind, status).inc()
        if seconds is not None:
            self.job_seconds.labels(kind).observe(seconds)

    def jobs_counted(self, num_running: int, num_queued: int) -> None:
        """Set how many jobs there are."""
        self.jobs_running.set(num_running)
        self.jobs_waiting.set(num_queued)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def names(self) -> list[str]:
        """Every metric's name as it is scraped, for the documentation."""
        names = []
        for family in self._registry.collect():
            names.append(family.name + ("_total" if family.type == "counter" else ""))
        return sorted(names)

    def _counter(self, name: str, text: str, *labels: str) -> Labelled[Counter]:
        return Labelled(Counter(f"{METRIC_PREFIX}{name}", text, labels, registry=self._registry))

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{METRIC_PREFIX}{name}", text, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{METRIC_PREFIX}{name}", text, buckets=buckets, registry=self._registry)


class _EngineCollector(Collector):
    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(METRIC_PREFIX + name, text, value=getattr(stats, name))
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(METRIC_PREFIX + name, text, value=getattr(stats, name))
        yield _step_histogram(stats.step_seconds)
        modes = CounterMetricFamily(
            f"{METRIC_PREFIX}steps",
            "Steps by how they ran: eager, captured as a graph, or replayed from one.",
            labels=["mode"],
        )
        for mode, count in stats.steps_by_mode.items():
            modes.add_metric([mode], count)
        yield modes


def _step_histogram(steps: StepSeconds) -> Metric:
    bounds = [*map(floatToGoString, steps.bounds), "+Inf"]
    return HistogramMetricFamily(
        f"{METRIC_PREFIX}step_seconds",
        "Steps of the engine: schedule, run, sample, record, emit.",
        buckets=list(zip(bounds, accumulate(steps.counts), strict=True)),
        sum_value=steps.total,
    )
