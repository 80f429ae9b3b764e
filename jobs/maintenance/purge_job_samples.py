"""Daily: forget how fast jobs of long ago went."""

from datetime import timedelta
from typing import Any

from db.queries import affected, sql
from jobs.engine.engine import Engine

KEEP = timedelta(days=90)


async def purge_job_samples(engine: Engine) -> dict[str, Any]:
    async with engine.database.connection() as connection:
        tenants = [row["tenant_id"] async for row in sql.tenant_ids(connection)]
    purged = 0
    for tenant_id in tenants:
        async with engine.database.transaction(tenant_id) as tx:
            purged += affected(await sql.purge_job_samples(tx.connection, tenant_id=tenant_id, keep=KEEP))
    return {"purged": purged}
