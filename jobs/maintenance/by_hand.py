"""Maintenance that an operator asks for: one run of a name at a time, over all processes."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from core.errors import MaintenanceRunningError, NotFoundError, UnavailableError
from db.queries import sql
from jobs.engine.engine import Engine
from jobs.maintenance import MAINTENANCE, Run, record_run


async def run_by_hand(engine: Engine, name: str, user_id: UUID) -> Run:
    """Run it now, beside whatever cron does, and record it; a run that fails is recorded as one.

    Raises `NotFoundError`, `MaintenanceRunningError`, and `UnavailableError` when it could not be recorded.
    """
    if name not in MAINTENANCE:
        raise NotFoundError("maintenance", name)
    async with _alone(engine, name):
        run = await record_run(engine, name, requested_by=user_id)
    if run.row is None:
        raise UnavailableError(f"{name} ran, and PostgreSQL could not record how: run it again")
    return run


async def running_by_hand(engine: Engine, names: Sequence[str]) -> set[str]:
    async with engine.database.connection() as connection:
        return {row["name"] async for row in sql.maintenance_in_hand(connection, names=list(names))}


@contextlib.asynccontextmanager
async def _alone(engine: Engine, name: str) -> AsyncIterator[None]:
    """A lock in PostgreSQL, which a process that dies gives back, whatever stood between."""
    async with engine.database.connection() as connection, connection.transaction():
        if not await sql.take_maintenance(connection, name=name):
            raise MaintenanceRunningError(f"{name} is running already: wait for its end", name=name)
        yield
