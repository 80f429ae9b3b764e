"""Every minute: give the audit log's new entries their places in the chain. `guthi audit verify` checks them."""

from typing import Any

from core.telemetry import emit
from db.queries import sql
from jobs.engine.engine import Engine

AT_ONCE = 10_000


async def chain_audit(engine: Engine) -> dict[str, Any]:
    """`chained` counts tenants' months whose chain grew. Each end is logged: a witness that is not in the database."""
    ends: dict[Any, Any] = {}
    async with engine.database.connection() as connection:
        while grown := [row async for row in sql.chain_audit(connection, most=AT_ONCE)]:
            ends |= {(row["tenant_id"], row["month"]): row for row in grown}
    for (tenant_id, month), end in ends.items():
        emit(
            "audit_chained",
            tenant_id=str(tenant_id),
            month=f"{month:%Y-%m}",
            position=end["position"],
            hash=end["hash"].hex(),
        )
    return {"chains": len(ends)}
