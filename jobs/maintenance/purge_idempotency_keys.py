"""Daily: forget the stored answers that nobody will ask for again."""

from datetime import timedelta
from typing import Any

from db.queries import affected, sql
from jobs.engine.engine import Engine


async def purge_idempotency_keys(engine: Engine) -> dict[str, Any]:
    keep = timedelta(hours=engine.settings.idempotency_hours)
    async with engine.database.connection() as connection:
        tenants = [row["tenant_id"] async for row in sql.tenant_ids(connection)]
    purged = 0
    for tenant_id in tenants:
        async with engine.database.transaction(tenant_id) as tx:
            purged += affected(await sql.purge_idempotency_keys(tx.connection, tenant_id=tenant_id, keep=keep))
    return {"purged": purged}
