"""Contribution cycles: one for each death, owed by every other member of the tier."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from core.errors import InvalidInputError, NotFoundError
from db.database import Transaction
from db.queries import sql
from domain.counters import next_code
from domain.events import record_change
from domain.states import CYCLE_TRANSITIONS, check_arrow

Cycle = Mapping[str, Any]
"""A row of `contribution_cycles`."""

EVENT_OF_STATUS = {
    "Initializing": "ContributionCycleRetried",
    "Active": "ContributionCycleActivated",
    "Failed": "ContributionCycleFailed",
    "Cancelled": "ContributionCycleCancelled",
    "Completed": "ContributionCycleCompleted",
}


@dataclass(frozen=True, slots=True)
class NewCycle:
    """What an officer asks for; None takes the tier's own amount."""

    tier_id: UUID
    deceased_member_id: UUID
    claim_id: UUID | None = None
    contribution_amount: Decimal | None = None
    benefit_amount: Decimal | None = None
    duration_days: int = 15


async def open_cycle(tx: Transaction, new: NewCycle, created_by: UUID) -> Cycle:
    """Insert a cycle `Initializing`, with its code and its event; from here on the set that owes is fixed.

    Holds the tier's exclusive lock until the commit. Raises `NotFoundError` for the tier or the member, and
    `InvalidInputError` when the member is not of the tier or not deceased.
    """
    tier, _ = await _check(tx, new)
    await sql.lock_tier_exclusive(tx.connection, tier_id=new.tier_id)
    cycle: Cycle = await sql.insert_cycle(
        tx.connection,
        tenant_id=tx.tenant_id,
        cycle_code=await next_code(tx, f"CC-{await _this_year(tx)}", digits=5),
        claim_id=new.claim_id,
        tier_id=new.tier_id,
        deceased_member_id=new.deceased_member_id,
        contribution_amount=new.contribution_amount or tier["contribution_amount"],
        benefit_amount=new.benefit_amount or tier["benefit_amount"],
        duration_days=new.duration_days,
        created_by=created_by,
    )
    await record_change(tx, "ContributionCycleInitiated", None, cycle, created_by)
    return cycle


@dataclass(frozen=True, slots=True)
class CyclePreview:
    """What a cycle would be if it were started now."""

    deceased_name: str
    total_members: int
    contribution_amount: Decimal
    benefit_amount: Decimal
    start_date: date
    deadline: date


async def preview_cycle(tx: Transaction, new: NewCycle) -> CyclePreview:
    """Changes nothing and locks nothing: the count may be another one a moment later. Raises as `open_cycle`."""
    tier, member = await _check(tx, new)
    now = (await sql.read_clock(tx.connection)).replace(tzinfo=UTC)
    total: int = await sql.count_owing(
        tx.connection,
        tenant_id=tx.tenant_id,
        tier_id=new.tier_id,
        cursor=UUID(int=0),
        as_of=now,
        deceased_member_id=new.deceased_member_id,
    )
    return CyclePreview(
        deceased_name=member["full_name"],
        total_members=total,
        contribution_amount=new.contribution_amount or tier["contribution_amount"],
        benefit_amount=new.benefit_amount or tier["benefit_amount"],
        start_date=now.date(),
        deadline=now.date() + timedelta(days=new.duration_days),
    )


async def _check(tx: Transaction, new: NewCycle) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The tier and the deceased member, if a cycle may be started for them."""
    tier = await sql.get_tier(tx.connection, tenant_id=tx.tenant_id, tier_id=new.tier_id)
    if tier is None:
        raise NotFoundError("tier", new.tier_id)
    member = await sql.get_member(tx.connection, tenant_id=tx.tenant_id, member_id=new.deceased_member_id)
    if member is None:
        raise NotFoundError("member", new.deceased_member_id)
    if member["tier_id"] != new.tier_id:
        raise InvalidInputError("the deceased member is not of this tier", field="deceasedMemberId")
    if member["status"] != "Deceased":
        raise InvalidInputError(
            f"the member is {member['status']}: record the death first, then start the cycle", field="deceasedMemberId"
        )
    return tier, member


async def set_cycle_status(
    tx: Transaction, cycle_id: UUID, status: str, *, total_members: int | None = None, reason: str | None = None
) -> Cycle:
    """Follow one arrow of the map and append its event. Raises `InvalidStatusTransitionError`."""
    cycle = await sql.lock_cycle(tx.connection, tenant_id=tx.tenant_id, cycle_id=cycle_id)
    if cycle is None:
        raise NotFoundError("cycle", cycle_id)
    check_arrow("cycle", CYCLE_TRANSITIONS, cycle["cycle_status"], status)
    changed: Cycle = await sql.set_cycle_status(
        tx.connection,
        tenant_id=tx.tenant_id,
        cycle_id=cycle_id,
        from_status=cycle["cycle_status"],
        status=status,
        total_members=total_members,
    )
    facts: dict[str, Any] = {} if reason is None else {"reason": reason}
    await record_change(tx, EVENT_OF_STATUS[status], cycle, changed, **facts)
    return changed


async def count_owing_up_to(tx: Transaction, cycle: Cycle, most: int) -> int:
    """Members who owe in this cycle, counted no further than `most`."""
    found: int = await sql.count_owing_up_to(
        tx.connection,
        tenant_id=tx.tenant_id,
        tier_id=cycle["tier_id"],
        as_of=cycle["as_of"],
        deceased_member_id=cycle["deceased_member_id"],
        most=most,
    )
    return found


async def _this_year(tx: Transaction) -> int:
    """By the database's clock, which also dates the cycle."""
    now: datetime = await sql.read_clock(tx.connection)
    return now.year
