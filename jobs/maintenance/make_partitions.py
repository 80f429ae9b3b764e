"""Daily: the partitions of this month and the next two, so that no row falls into a default one."""

from typing import Any

from db.queries import sql
from jobs.engine.engine import Engine

MONTHS_AHEAD = 2


async def make_partitions(engine: Engine) -> dict[str, Any]:
    async with engine.database.connection() as connection:
        made = [r["name"] async for r in sql.make_partitions(connection, months_ahead=MONTHS_AHEAD)]
    return {"made": made}
