"""Members, and the history of who was active in which tier when."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from core.errors import ConcurrentModificationError, NotFoundError
from db.database import Transaction
from db.queries import sql
from domain.states import MEMBER_TRANSITIONS, check_arrow

Member = Mapping[str, Any]
"""A row of `members`."""


async def update_member(tx: Transaction, member_id: UUID, version: int, changes: Mapping[str, Any]) -> Member:
    """Change some columns of a member, and the membership when status or tier change with them.

    `changes` maps columns to new values. Membership changes hold the tiers' shared locks and read the clock
    under them, so a cycle that starts meanwhile sees all of the change or nothing. Raises `NotFoundError`
    (member, tier, agent), `ConcurrentModificationError`, `InvalidStatusTransitionError`.
    """
    old = await sql.lock_member(tx.connection, tenant_id=tx.tenant_id, member_id=member_id)
    if old is None:
        raise NotFoundError("member", member_id)
    if old["version"] != version:
        raise ConcurrentModificationError(
            "somebody changed this member first: read it again", version=old["version"], sent=version
        )
    new = {**old, **changes}
    if new["status"] != old["status"]:
        check_arrow("member", MEMBER_TRANSITIONS, old["status"], new["status"])
    await _check_references(tx, new)
    await _move_membership(tx, old, new)
    columns = ("full_name", "gender", "status", "tier_id", "agent_id", "phone", "email")
    changed: Member = await sql.update_member(
        tx.connection,
        tenant_id=tx.tenant_id,
        member_id=member_id,
        version=version,
        **{column: new[column] for column in columns},
    )
    return changed


async def _check_references(tx: Transaction, new: Member) -> None:
    tier_id, agent_id = new["tier_id"], new["agent_id"]
    if await sql.get_tier(tx.connection, tenant_id=tx.tenant_id, tier_id=tier_id) is None:
        raise NotFoundError("tier", tier_id)
    if agent_id is not None and not await sql.get_agent(tx.connection, tenant_id=tx.tenant_id, agent_id=agent_id):
        raise NotFoundError("agent", agent_id)


async def _move_membership(tx: Transaction, old: Member, new: Member) -> None:
    before = old["tier_id"] if old["status"] == "Active" else None
    after = new["tier_id"] if new["status"] == "Active" else None
    if before == after:
        return
    for tier_id in sorted(tier for tier in (before, after) if tier is not None):
        await sql.lock_tier_shared(tx.connection, tier_id=tier_id)
    member = {"tenant_id": tx.tenant_id, "member_id": old["member_id"]}
    if before is not None:
        await sql.close_membership(tx.connection, **member)
    if after is not None:
        await sql.open_membership(tx.connection, tier_id=after, **member)
