"""The event store: what changed, appended in the transaction of the change."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from db.database import Transaction
from db.queries import sql


async def append_event(
    tx: Transaction,
    aggregate_type: str,
    aggregate_id: UUID,
    version: int,
    event_type: str,
    payload: Mapping[str, Any],
    created_by: UUID | None = None,
) -> None:
    """`version` is the one that the aggregate's row has now: each change of it is one event."""
    await sql.append_event(
        tx.connection,
        tenant_id=tx.tenant_id,
        aggregate_type=aggregate_type,
        aggregate_id=aggregate_id,
        version=version,
        event_type=event_type,
        payload=dict(payload),
        created_by=created_by,
    )
