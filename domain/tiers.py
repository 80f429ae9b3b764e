"""Tiers: what members owe, and what a family receives."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from db.database import Transaction
from db.queries import sql
from domain.events import append_event
from domain.versions import refuse_stale

Tier = Mapping[str, Any]
"""A row of `tiers`."""


async def update_tier(
    tx: Transaction, tier_id: UUID, version: int, changes: Mapping[str, Any], by: UUID | None = None
) -> Tier:
    """Change `name` or an amount, for the cycles that start from now on.

    Raises `NotFoundError` and `ConcurrentModificationError`.
    """
    changed: Tier | None = await sql.update_tier(
        tx.connection,
        tenant_id=tx.tenant_id,
        tier_id=tier_id,
        version=version,
        **{column: changes.get(column) for column in ("name", "contribution_amount", "benefit_amount")},
    )
    if changed is None:
        row = await sql.get_tier(tx.connection, tenant_id=tx.tenant_id, tier_id=tier_id)
        refuse_stale("tier", tier_id, row, version)
    await append_event(tx, "TierChanged", tier_id, changed["version"], {name: changed[name] for name in changes}, by)
    return changed
