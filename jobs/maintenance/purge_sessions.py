"""Daily: forget the sessions of the pages that are past their time; they opened nothing any more."""

from typing import Any

from db.queries import affected, sql
from jobs.engine.engine import Engine


async def purge_sessions(engine: Engine) -> dict[str, Any]:
    async with engine.database.connection() as connection:
        tenants = [row["tenant_id"] async for row in sql.tenant_ids(connection)]
    purged = 0
    for tenant_id in tenants:
        async with engine.database.transaction(tenant_id) as tx:
            purged += affected(await sql.purge_sessions(tx.connection, tenant_id=tenant_id))
    return {"purged": purged}
