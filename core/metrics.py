"""Prometheus metrics, fed by the events that the code emits anyway.

Counters speak of this process: sum them over all of them. The gauges of `Overview` speak of the whole system, as the
process saw it that swept last: take the maximum. A counter's label sets stand at 0 from the start, as `increase()`
sees nothing in a series that is born at 1.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.telemetry import subscribe

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

ROWS = Counter("guthi_rows", "Keys walked by batches", ["kind"], registry=REGISTRY)
BATCHES = Counter("guthi_batches", "Batches committed", ["kind"], registry=REGISTRY)
BATCH_SECONDS = Histogram(
    "guthi_batch_seconds",
    "What a batch took, commit included",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
JOB_CHANGES = Counter("guthi_job_changes", "Jobs that turned to a state", ["kind", "state"], registry=REGISTRY)
RINGS = Counter("guthi_rings", "Times the doorbell was rung", registry=REGISTRY)
LEASES_LOST = Counter("guthi_leases_lost", "Leases found gone by their holder", registry=REGISTRY)
LEASES_EXPIRED = Counter("guthi_leases_expired", "Leases that ran out: their worker died or froze", registry=REGISTRY)
RETRIES = Counter("guthi_attempts_failed", "Attempts that failed", ["retriable"], registry=REGISTRY)
RESCUES = Counter("guthi_sweep_rescues", "Jobs that the sweeper had to ring for", registry=REGISTRY)
SWEEPS = Counter("guthi_sweeps", "Sweeps done", registry=REGISTRY)
REDIS_AWAY = Counter("guthi_redis_away", "Calls that Redis did not answer", registry=REGISTRY)
EVENTS_PLACED = Counter("guthi_events_placed", "Events given their position in the feed", registry=REGISTRY)
UNAVAILABLE = Counter("guthi_requests_unavailable", "Requests answered 503", registry=REGISTRY)
UNCHECKED = Counter("guthi_rate_limit_unchecked", "Requests let through as Redis did not answer", registry=REGISTRY)
DEFECTS = Counter("guthi_requests_failed", "Requests answered 500", registry=REGISTRY)
REQUESTS = Counter("guthi_requests", "Requests answered", ["method", "route", "status"], registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "guthi_request_seconds",
    "Until an answer began",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=REGISTRY,
)
PICKUP_SECONDS = Histogram(
    "guthi_pickup_seconds",
    "From the ring to a worker's hand",
    buckets=(0.002, 0.004, 0.01, 0.05, 0.25, 1, 5, 30),
    registry=REGISTRY,
)

JOB_STATES = ("Queued", "Processing", "Paused", "Completed", "Failed", "Cancelled")


RETRIABLE = ("true", "false")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What a client sends besides is counted as "other": it could be anything, and each would be a series."""


class Overview(Collector):
    """The whole system, as this process saw it when it last swept; shown for `SHOWN_SECONDS` and then no more.

    The next sweep may be another process's. What this one saw then grows old, and would keep an alert firing, or hide
    a problem: so it disappears. All of it is read from PostgreSQL and Redis at each sweep, so that a restart loses
    nothing, and what is not known (None) is not shown.
    """

    SHOWN_SECONDS = 60
    """Twice the longest `GUTHI_SWEEP_SECONDS`; with many workers each sweeps now and then only."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, Any] = {}
        self._seen_at = float("-inf")

    def see(self, seen: dict[str, Any]) -> None:
        self._seen, self._seen_at = seen, self._clock()

    def collect(self) -> Iterator[Metric]:
        seen = self._seen if self._clock() - self._seen_at <= self.SHOWN_SECONDS else {}
        jobs = GaugeMetricFamily("guthi_jobs", "Jobs, over all tenants", labels=["kind", "state"])
        for (kind, state), count in seen.get("jobs", {}).items():
            jobs.add_metric([kind, state], count)
        age = GaugeMetricFamily(
            "guthi_maintenance_age_seconds", "Since a maintenance job last succeeded", labels=["name"]
        )
        for name, seconds in seen.get("maintenance_age_seconds", {}).items():
            age.add_metric([name], seconds)
        yield from (jobs, age)
        for name, meaning in _SEEN.items():
            gauge = GaugeMetricFamily(f"guthi_{name}", meaning)
            if seen.get(name) is not None:
                gauge.add_metric([], seen[name])
            yield gauge


_SEEN = {
    "oldest_unfinished_job_seconds": "How long the job that stands still longest has been Queued or Processing",
    "queue_depth": "Rings in the queue, those in progress among them",
    "outbox_lag_seconds": "Age of the oldest event without a position in the feed",
    "broken_invariants": "Found by the last reconcile run",
    "broken_sequences": "Sequences and counters that the last daily check found broken",
}
OVERVIEW = Overview()
REGISTRY.register(OVERVIEW)


def collect_metrics(kinds: Iterable[str] = ()) -> None:
    """From now on this process's events are counted; `kinds` of jobs begin at 0. Call it once, at the start."""
    for kind in kinds:
        ROWS.labels(kind)
        BATCHES.labels(kind)
        BATCH_SECONDS.labels(kind)
        for state in JOB_STATES:
            JOB_CHANGES.labels(kind, state)
    for retriable in RETRIABLE:
        RETRIES.labels(retriable)
    subscribe(_count)


@lru_cache(1_000)
def _of_requests(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Looked up once: every request comes by here."""
    known = method if method in METHODS else "other"
    return REQUESTS.labels(known, route, status), REQUEST_SECONDS.labels(route)


def _count(event: str, fields: dict[str, Any]) -> None:
    match event:
        case "request_ended" if fields["status"]:
            answered, seconds = _of_requests(fields["method"], fields["route"], fields["status"])
            answered.inc()
            seconds.observe(fields["answered_seconds"])
        case "batch_done":
            ROWS.labels(fields["kind"]).inc(fields["rows"])
            BATCHES.labels(fields["kind"]).inc()
            BATCH_SECONDS.labels(fields["kind"]).observe(fields["seconds"])
        case "job_rung":
            RINGS.inc()
        case "job_picked_up":
            PICKUP_SECONDS.observe(fields["seconds"])
        case "lease_lost":
            LEASES_LOST.inc()
        case "lease_expired":
            LEASES_EXPIRED.inc()
        case "attempt_failed":
            RETRIES.labels(str(fields["retriable"]).lower()).inc()
        case "sweep_done":
            SWEEPS.inc()
            RESCUES.inc(fields["rang"])
        case "redis_away" | "progress_not_written":
            REDIS_AWAY.inc()
        case "events_relayed":
            EVENTS_PLACED.inc(fields["placed"])
        case "request_unavailable":
            UNAVAILABLE.inc()
        case "rate_limit_unchecked":
            UNCHECKED.inc()
        case "request_failed":
            DEFECTS.inc()
        case "jobs_counted":
            OVERVIEW.see(fields)
        case _ if event.startswith("job_") and event[4:].capitalize() in JOB_STATES:
            JOB_CHANGES.labels(fields["kind"], event[4:].capitalize()).inc()
