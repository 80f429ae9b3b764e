"""Every few seconds: ring again for everything that should run and does not. See `jobs.engine.sweep`."""

from collections.abc import Callable
from typing import Any

from core.telemetry import emit
from db.queries import sql
from jobs.engine import sweep as engine_sweep
from jobs.engine.bell import REDIS_FAULTS
from jobs.engine.engine import Engine
from jobs.engine.model import JobState

WATCHED = (
    "make_partitions",
    "reconcile",
    "purge_idempotency_keys",
    "purge_job_samples",
    "purge_sessions",
    "check_sequences",
    "chain_audit",
)
"""What else runs by cron, but for the relay: that shows by the events that wait."""


async def sweep(engine: Engine) -> dict[str, Any]:
    rang = await engine_sweep.sweep(engine)
    await _overlook(engine)
    return {"rang": rang}


async def _overlook(engine: Engine) -> None:
    """For the gauges of this process's `/metrics`: whoever sweeps knows."""
    async with engine.database.connection() as connection:
        jobs = [row async for row in sql.job_counts(connection)]
        waiting = [row["oldest_seconds"] async for row in sql.unplaced_events(connection)]
        runs = {row["name"]: row async for row in sql.maintenance_health(connection, names=list(WATCHED))}
    try:
        depth = await engine.bell.depth()
    except REDIS_FAULTS:
        depth = None
    none_at_all = {(kind, state.value): 0 for kind in engine.kinds for state in JobState}
    unfinished = [row["oldest_seconds"] for row in jobs if row["state"] in ("Queued", "Processing")]
    emit(
        "jobs_counted",
        jobs={**none_at_all, **{(row["kind"], row["state"]): row["jobs"] for row in jobs}},
        oldest_unfinished_job_seconds=max(unfinished, default=0.0),
        queue_depth=depth,
        outbox_lag_seconds=max(waiting, default=0.0),
        maintenance_age_seconds={name: run["age_seconds"] for name, run in runs.items()},
        broken_invariants=_found(runs, "reconcile", lambda result: result["broken"]),
        broken_sequences=_found(runs, "check_sequences", lambda result: sum(result["broken"].values())),
    )


def _found(runs: dict[str, Any], name: str, read: Callable[[dict[str, Any]], int]) -> int | None:
    """By its last run that succeeded; None while none has."""
    result = runs[name]["result"] if name in runs else None
    return None if result is None else read(result)
