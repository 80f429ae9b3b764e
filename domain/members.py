"""Members: their way from an application to the end, and the history of who was active in which tier when."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from core.errors import (
    ConcurrentModificationError,
    InvalidInputError,
    InvalidStatusTransitionError,
    NotFoundError,
)
from db.database import Transaction
from db.queries import sql
from domain.counters import next_code
from domain.events import record_change
from domain.states import MEMBER_TRANSITIONS, check_arrow

Member = Mapping[str, Any]
"""A row of `members`."""

STEPS: Mapping[str, str] = {
    "review": "UnderReview",
    "approve": "Approved",
    "activate": "Active",
    "suspend": "Suspended",
    "resume": "Active",
    "reject": "Rejected",
    "report-death": "Deceased",
}
"""What an officer calls, and the status it leads to."""
STEP_BEGINS = {"activate": ("Approved",), "resume": ("Inactive", "Suspended")}
"""Where two steps lead to one status, each has its own beginnings; every other may follow all arrows of the map."""
UPDATE_ENDS = {"Active", "Inactive", "Deceased"}
"""The statuses that a plain update may set; the others need what only their step asks for."""
OLDEST_DEATH = date(1800, 1, 1)

_COLUMNS = (
    *("full_name", "gender", "status", "tier_id", "agent_id", "phone", "email"),
    *("member_number", "status_reason", "died_on"),
)


@dataclass(frozen=True, slots=True)
class NewMember:
    """An application."""

    full_name: str
    gender: str
    tier_id: UUID
    agent_id: UUID | None = None
    phone: str | None = None
    email: str | None = None


async def register_member(tx: Transaction, new: NewMember, by: UUID | None = None) -> Member:
    """A member `Pending`, who has no number and owes nothing. Raises `NotFoundError` (tier, agent)."""
    fields = asdict(new)
    await _check_references(tx, fields)
    member: Member = await sql.insert_member(tx.connection, tenant_id=tx.tenant_id, **fields)
    await record_change(tx, "MemberRegistered", None, member, by)
    return member


async def take_step(
    tx: Transaction,
    member_id: UUID,
    version: int,
    step: str,
    reason: str | None = None,
    died_on: date | None = None,
    by: UUID | None = None,
) -> Member:
    """Follow one arrow of the map by its step. Repeated, the version is stale and nothing happens twice.

    Raises `NotFoundError`, `ConcurrentModificationError`, `InvalidStatusTransitionError`, and
    `InvalidInputError` for a day of death that cannot be.
    """
    old = await _lock(tx, member_id, version)
    _check_step(old["status"], step)
    return await _change(tx, old, {"status": STEPS[step], "status_reason": reason, "died_on": died_on}, by)


async def update_member(
    tx: Transaction, member_id: UUID, version: int, changes: Mapping[str, Any], by: UUID | None = None
) -> Member:
    """Change some columns of a member; `changes` maps them to new values.

    A status may be changed here as far as no step asks for more: see `UPDATE_ENDS`. Raises `NotFoundError`
    (member, tier, agent), `ConcurrentModificationError`, `InvalidStatusTransitionError`.
    """
    old = await _lock(tx, member_id, version)
    status = changes.get("status", old["status"])
    if status != old["status"]:
        check_arrow("member", MEMBER_TRANSITIONS, old["status"], status)
        if status not in UPDATE_ENDS or (status == "Active" and old["status"] != "Inactive"):
            step = next(step for step in STEPS if _leads(step, old["status"], status))
            raise InvalidStatusTransitionError("member", old["status"], status, f" by an update: use the call {step}")
        changes = {"status_reason": None, "died_on": None, **changes}
    return await _change(tx, old, changes, by)


async def _lock(tx: Transaction, member_id: UUID, version: int) -> Member:
    old: Member | None = await sql.lock_member(tx.connection, tenant_id=tx.tenant_id, member_id=member_id)
    if old is None:
        raise NotFoundError("member", member_id)
    if old["version"] != version:
        raise ConcurrentModificationError(
            "somebody changed this member first: read it again", version=old["version"], sent=version
        )
    return old


def _leads(step: str, current: str, wanted: str) -> bool:
    return STEPS[step] == wanted and current in STEP_BEGINS.get(step, (current,))


def _check_step(current: str, step: str) -> None:
    check_arrow("member", MEMBER_TRANSITIONS, current, STEPS[step])
    if not _leads(step, current, STEPS[step]):
        only = " or ".join(STEP_BEGINS[step])
        raise InvalidStatusTransitionError("member", current, STEPS[step], f" by {step}: that is for {only} ones")


async def _change(tx: Transaction, old: Member, changes: Mapping[str, Any], by: UUID | None) -> Member:
    """The one place that writes a member, locked and checked by the caller, and what follows from the change.

    Membership changes hold the tiers' shared locks and read the clock under them, so a cycle that starts
    meanwhile sees all of the change or nothing.
    """
    new = {**old, **changes}
    await _check_references(tx, new)
    if new["status"] == "Deceased" != old["status"]:
        new["died_on"] = await _day_of_death(tx, new["died_on"])
    if new["status"] == "Approved" != old["status"]:
        new["member_number"] = await _next_member_number(tx, new["gender"])
    await _move_membership(tx, old, new)
    changed: Member = await sql.update_member(
        tx.connection,
        tenant_id=tx.tenant_id,
        member_id=old["member_id"],
        version=old["version"],
        **{column: new[column] for column in _COLUMNS},
    )
    await record_change(tx, "MemberChanged", old, changed, by)
    return changed


async def _check_references(tx: Transaction, new: Member) -> None:
    tier_id, agent_id = new["tier_id"], new["agent_id"]
    if await sql.get_tier(tx.connection, tenant_id=tx.tenant_id, tier_id=tier_id) is None:
        raise NotFoundError("tier", tier_id)
    if agent_id is not None and not await sql.get_agent(tx.connection, tenant_id=tx.tenant_id, agent_id=agent_id):
        raise NotFoundError("agent", agent_id)


async def _day_of_death(tx: Transaction, died_on: date | None) -> date:
    now: datetime = await sql.read_clock(tx.connection)
    if died_on is None:
        return now.date()
    if died_on > now.date():
        raise InvalidInputError("the day of death lies in the future (UTC)", field="diedOn")
    if died_on < OLDEST_DEATH:
        raise InvalidInputError("the day of death lies too far in the past", field="diedOn")
    return died_on


async def _next_member_number(tx: Transaction, gender: str) -> str:
    """From the series that imports use, and under their lock: else one could bring the very number given here."""
    await sql.lock_member_numbers(tx.connection, tenant_id=tx.tenant_id)
    series: str = await sql.member_series(tx.connection, tenant_id=tx.tenant_id, gender=gender)
    return await next_code(tx, series, digits=6)


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
