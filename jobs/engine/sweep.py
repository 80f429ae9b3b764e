"""The one recovery mechanism: ring for everything that should run and does not.

Whatever happened (a crash, a lost Redis, a ring that arq dropped, a retry that is due), it shows in PostgreSQL
as a shard that is free and due. The sweeper only rings; it never runs or steals.
"""

from core.telemetry import emit
from db.queries import sql
from jobs.engine.bell import REDIS_FAULTS
from jobs.engine.engine import Engine


async def sweep(engine: Engine) -> int:
    """Returns how many jobs it rang for: those due for which no ring hangs in the queue already."""
    async with engine.database.connection() as connection:
        due = [row async for row in sql.due_jobs(connection, parallelism=engine.settings.job_parallelism)]
    rang = 0
    try:
        pending = await engine.bell.pending() if due else set()
    except REDIS_FAULTS as error:
        emit("redis_away", doing="sweep", error=repr(error))
    else:
        for row in due:
            if str(row["job_id"]) not in pending:
                rang += await engine.bell.ring(row["job_id"], row["tenant_id"], row["priority"])
    emit("sweep_done", due=len(due), rang=rang)
    return rang
