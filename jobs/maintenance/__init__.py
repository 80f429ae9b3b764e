"""Maintenance: what cron triggers, and an operator can run by hand. Each run is recorded.

Every job may run at any time, twice, or on several workers at once.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from core.telemetry import emit
from db.queries import sql
from db.retriable import is_retriable
from jobs.engine.engine import Engine
from jobs.maintenance.chain_audit import chain_audit
from jobs.maintenance.check_sequences import check_sequences
from jobs.maintenance.make_partitions import make_partitions
from jobs.maintenance.purge import purge
from jobs.maintenance.reconcile import reconcile
from jobs.maintenance.relay_events import relay_events
from jobs.maintenance.sweep import sweep

MAINTENANCE: Mapping[str, Callable[[Engine], Awaitable[dict[str, Any]]]] = {
    "sweep": sweep,
    "relay_events": relay_events,
    "make_partitions": make_partitions,
    "reconcile": reconcile,
    "purge": purge,
    "check_sequences": check_sequences,
    "chain_audit": chain_audit,
}
KEEP_RUNS: Mapping[str, timedelta] = {
    "sweep": timedelta(hours=1),
    "relay_events": timedelta(hours=1),
    "chain_audit": timedelta(days=1),
}
KEEP_OTHER_RUNS = timedelta(days=90)


async def run_maintenance(engine: Engine, name: str) -> dict[str, Any] | None:
    """Run one job and record it with start, end and result; None when it failed, which is recorded and logged.

    Raises `KeyError` for a name that does not exist.
    """
    act, started_at = MAINTENANCE[name], datetime.now(UTC)
    result: dict[str, Any] | None = None
    error: str | None = None
    try:
        result = await act(engine)
    except Exception as failure:
        error = repr(failure)
        emit("maintenance_failed", name=name, error=error, exc_info=None if is_retriable(failure) else failure)
    try:
        async with engine.database.connection() as connection:
            await sql.record_maintenance_run(connection, name=name, started_at=started_at, result=result, error=error)
            await sql.forget_maintenance_runs(connection, name=name, keep=KEEP_RUNS.get(name, KEEP_OTHER_RUNS))
    except Exception as failure:
        if not is_retriable(failure):
            raise
        # PostgreSQL is away: there is nowhere to record it but the log.
        emit("maintenance_failed", name=name, error=repr(failure))
    return result
