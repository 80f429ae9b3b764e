"""Every few seconds: ring again for everything that should run and does not. See `jobs.engine.sweep`."""

from typing import Any

from core.telemetry import emit
from db.queries import sql
from jobs.engine import sweep as engine_sweep
from jobs.engine.bell import REDIS_FAULTS
from jobs.engine.engine import Engine


async def sweep(engine: Engine) -> dict[str, Any]:
    rang = await engine_sweep.sweep(engine)
    await _count_jobs(engine)
    return {"rang": rang}


async def _count_jobs(engine: Engine) -> None:
    """For the gauges of this worker's `/metrics`: whoever sweeps knows."""
    async with engine.database.connection() as connection:
        rows = [row async for row in sql.job_counts(connection)]
    try:
        depth = await engine.bell.depth()
    except REDIS_FAULTS:
        depth = 0
    unfinished = [row["oldest_seconds"] for row in rows if row["state"] in ("Queued", "Processing")]
    emit(
        "jobs_counted",
        states={row["state"]: row["jobs"] for row in rows},
        oldest_unfinished_seconds=max(unfinished, default=0.0),
        queue_depth=depth,
    )
