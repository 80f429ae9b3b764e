"""Agents: who collects from whom."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from db.database import Transaction
from db.queries import sql
from domain.events import append_event
from domain.versions import refuse_stale

Agent = Mapping[str, Any]
"""A row of `agents`."""


async def update_agent(
    tx: Transaction, agent_id: UUID, version: int, changes: Mapping[str, Any], by: UUID | None = None
) -> Agent:
    """Change `name` or `email`, which may become None. Raises `NotFoundError` and `ConcurrentModificationError`."""
    changed: Agent | None = await sql.update_agent(
        tx.connection,
        tenant_id=tx.tenant_id,
        agent_id=agent_id,
        version=version,
        name=changes.get("name"),
        email=changes.get("email"),
        sets_email="email" in changes,
    )
    if changed is None:
        row = await sql.get_agent(tx.connection, tenant_id=tx.tenant_id, agent_id=agent_id)
        refuse_stale("agent", agent_id, row, version)
    await append_event(tx, "AgentChanged", agent_id, changed["version"], {name: changed[name] for name in changes}, by)
    return changed
