"""Maintenance: what cron triggers, and an operator can run by hand. Each run is recorded.

Every job may run at any time, twice, or on several workers at once.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from core.telemetry import emit
from db.queries import sql
from db.retriable import is_retriable
from jobs.engine.engine import Engine
from jobs.maintenance.chain_audit import chain_audit
from jobs.maintenance.check_sequences import check_sequences
from jobs.maintenance.make_partitions import make_partitions
from jobs.maintenance.purge_idempotency_keys import purge_idempotency_keys
from jobs.maintenance.purge_job_samples import purge_job_samples
from jobs.maintenance.purge_sessions import purge_sessions
from jobs.maintenance.reconcile import reconcile
from jobs.maintenance.relay_events import relay_events
from jobs.maintenance.sweep import sweep

MAINTENANCE: Mapping[str, Callable[[Engine], Awaitable[dict[str, Any]]]] = {
    "sweep": sweep,
    "relay_events": relay_events,
    "make_partitions": make_partitions,
    "reconcile": reconcile,
    "purge_idempotency_keys": purge_idempotency_keys,
    "purge_job_samples": purge_job_samples,
    "purge_sessions": purge_sessions,
    "check_sequences": check_sequences,
    "chain_audit": chain_audit,
}
KEEP_RUNS: Mapping[str, timedelta] = {
    "sweep": timedelta(hours=1),
    "relay_events": timedelta(hours=1),
    "chain_audit": timedelta(days=1),
}
KEEP_OTHER_RUNS = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Run:
    """`result` is None when it failed; `row` of `maintenance_runs` when it could not be recorded."""

    result: dict[str, Any] | None
    row: Mapping[str, Any] | None


async def run_maintenance(engine: Engine, name: str) -> dict[str, Any] | None:
    """Run one job and record it with start, end and result; None when it failed, which is recorded and logged.

    Raises `KeyError` for a name that does not exist.
    """
    return (await record_run(engine, name)).result


async def record_run(engine: Engine, name: str, requested_by: UUID | None = None) -> Run:
    """The same, told with its record."""
    act, started_at = MAINTENANCE[name], datetime.now(UTC)
    result: dict[str, Any] | None = None
    row, error = None, None
    try:
        result = await act(engine)
    except Exception as failure:
        error = repr(failure)
        emit("maintenance_failed", name=name, error=error, exc_info=None if is_retriable(failure) else failure)
    try:
        async with engine.database.connection() as connection:
            row = await sql.record_maintenance_run(
                connection,
                name=name,
                started_at=started_at,
                result=result,
                error=error,
                requested_by=requested_by,
            )
            await sql.forget_maintenance_runs(connection, name=name, keep=KEEP_RUNS.get(name, KEEP_OTHER_RUNS))
    except Exception as failure:
        if not is_retriable(failure):
            raise
        # PostgreSQL is away: there is nowhere to record it but the log.
        emit("maintenance_failed", name=name, error=repr(failure))
    return Run(result, row)
