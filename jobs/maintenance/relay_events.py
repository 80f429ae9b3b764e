"""Every few seconds: give committed events their place in the tenant's feed.

A position given at insert would be seen before that of a transaction which took a lower one and commits later, and
whoever reads on from the last position would skip it. So it is given after the commit, by one relay a tenant at a
time: positions are committed in their order, and without gaps.
"""

from typing import Any

from core.telemetry import emit
from db.queries import sql
from jobs.engine.engine import Engine

MOST = 5_000
"""Events placed in one transaction."""


async def relay_events(engine: Engine) -> dict[str, Any]:
    async with engine.database.connection() as connection:
        waiting = [row async for row in sql.unplaced_events(connection)]
        placed = 0
        for row in waiting:
            last = MOST
            while last == MOST:
                last = await sql.place_events(connection, tenant_id=row["tenant_id"], most=MOST)
                placed += last
    emit("events_relayed", placed=placed, oldest_seconds=max((row["oldest_seconds"] for row in waiting), default=0.0))
    return {"placed": placed}
