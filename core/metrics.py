"""Prometheus metrics, fed by the events that the code emits anyway."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

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
BROKEN_INVARIANTS = Gauge("guthi_broken_invariants", "Found by the last reconcile run", registry=REGISTRY)
OUTBOX_LAG = Gauge(
    "guthi_outbox_lag_seconds",
    "Age of the oldest event that the last relay run found without position",
    registry=REGISTRY,
)
EVENTS_PLACED = Counter("guthi_events_placed", "Events given their position in the feed", registry=REGISTRY)
BROKEN_SEQUENCES = Gauge(
    "guthi_broken_sequences", "Sequences and counters that the last daily check found broken", registry=REGISTRY
)
UNAVAILABLE = Counter("guthi_requests_unavailable", "Requests answered 503", registry=REGISTRY)
UNCHECKED = Counter("guthi_rate_limit_unchecked", "Requests let through as Redis did not answer", registry=REGISTRY)
DEFECTS = Counter("guthi_requests_failed", "Requests answered 500", registry=REGISTRY)
JOBS = Gauge("guthi_jobs", "Jobs by state, over all tenants", ["state"], registry=REGISTRY)
OLDEST_UNFINISHED = Gauge(
    "guthi_oldest_unfinished_job_seconds", "Age of the oldest job that is Queued or Processing", registry=REGISTRY
)
QUEUE_DEPTH = Gauge("guthi_queue_depth", "Rings in the queue", registry=REGISTRY)
PICKUP_SECONDS = Histogram(
    "guthi_pickup_seconds",
    "From the ring to a worker's hand",
    buckets=(0.002, 0.004, 0.01, 0.05, 0.25, 1, 5, 30),
    registry=REGISTRY,
)

JOB_STATES = ("Queued", "Processing", "Paused", "Completed", "Failed", "Cancelled")


def collect_metrics() -> None:
    """From now on this process's events are counted. Call it once, at the start."""
    subscribe(_count)


def _count(event: str, fields: dict[str, Any]) -> None:
    match event:
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
        case "reconcile_done":
            BROKEN_INVARIANTS.set(fields["broken"])
        case "events_relayed":
            OUTBOX_LAG.set(fields["oldest_seconds"])
            EVENTS_PLACED.inc(fields["placed"])
        case "sequences_checked":
            BROKEN_SEQUENCES.set(fields["broken"])
        case "request_unavailable":
            UNAVAILABLE.inc()
        case "rate_limit_unchecked":
            UNCHECKED.inc()
        case "request_failed":
            DEFECTS.inc()
        case "jobs_counted":
            for state in JOB_STATES:
                JOBS.labels(state).set(fields["states"].get(state, 0))
            OLDEST_UNFINISHED.set(fields["oldest_unfinished_seconds"])
            QUEUE_DEPTH.set(fields["queue_depth"])
        case _ if event.startswith("job_") and event[4:].capitalize() in JOB_STATES:
            JOB_CHANGES.labels(fields["kind"], event[4:].capitalize()).inc()
