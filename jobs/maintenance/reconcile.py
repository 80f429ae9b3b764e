"""Hourly: hold the books against the rows, tenant by tenant, and say what is broken."""

from typing import Any

from core.telemetry import emit
from db.queries import sql
from jobs.engine.engine import Engine
from jobs.invariants import broken_in_tenant


async def reconcile(engine: Engine) -> dict[str, Any]:
    async with engine.database.connection() as connection:
        tenants = [row["tenant_id"] async for row in sql.tenant_ids(connection)]
    broken = []
    for tenant_id in tenants:
        async with engine.database.transaction(tenant_id) as tx:
            broken += await broken_in_tenant(tx.connection, tenant_id)
    for found in broken:
        emit(
            "invariant_broken",
            invariant=found.invariant,
            tenant_id=str(found.tenant_id),
            subject=found.subject,
            detail=found.detail,
        )
    emit("reconcile_done", tenants=len(tenants), broken=len(broken))
    return {"tenants": len(tenants), "broken": len(broken)}
