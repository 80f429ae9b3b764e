"""A member's lifecycle as the domain has it: numbers, memberships, and what the database would not let pass."""

import asyncio
import io
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core.errors import ConcurrentModificationError, GuthiError, InvalidInputError, InvalidStatusTransitionError
from db.queries import sql
from domain.members import STEP_BEGINS, STEPS, Member, NewMember, register_member, take_step, update_member
from domain.states import MEMBER_TRANSITIONS
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.import_members import start_import
from jobs.invariants import broken_invariants
from jobs.state_maps import STATE_MAPS
from tests.cycles import start
from tests.support import Society, eventually, unguarded

STATES = STATE_MAPS["member"].states
WITHOUT_NUMBER = {"Pending", "UnderReview", "Rejected"}
WAY = ("review", "approve", "activate")


async def register(engine: Engine, society: Society, gender: str = "F") -> Member:
    async with engine.database.transaction(society.tenant_id) as tx:
        return await register_member(tx, NewMember("Sita", gender, society.tier_id))


async def step(engine: Engine, society: Society, member: Member, name: str, **more: Any) -> Member:
    async with engine.database.transaction(society.tenant_id) as tx:
        return await take_step(tx, member["member_id"], member["version"], name, **more)


async def walk(engine: Engine, society: Society, *steps: str, gender: str = "F") -> Member:
    """A new member who has taken these steps."""
    member = await register(engine, society, gender)
    for name in steps:
        member = await step(engine, society, member, name, reason="because")
    return member


async def memberships(owner: asyncpg.Connection, member: Member) -> list[bool]:
    """Whether each is open, in their order."""
    rows = await owner.fetch(
        "SELECT valid_to IS NULL FROM tier_memberships WHERE member_id = $1 ORDER BY valid_from", member["member_id"]
    )
    return [row[0] for row in rows]


async def put(owner: asyncpg.Connection, member: Member, status: str) -> Member:
    """The member as if come into `status`."""
    async with unguarded(owner, "members"):
        row = await owner.fetchrow(
            "UPDATE members SET status = $1, status_reason = 'x',"
            " member_number = CASE WHEN $1 <> ALL($3::text[]) THEN 'N-1' END,"
            " joined_on = CASE WHEN $1 <> ALL($3::text[]) THEN current_date END WHERE member_id = $2 RETURNING *",
            status,
            member["member_id"],
            list(WITHOUT_NUMBER),
        )
    assert row is not None
    return dict(row)


async def test_a_member_is_pending_then_numbered_then_owes(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    now = datetime.now(UTC)
    member = await register(engine, society)
    assert (member["status"], member["member_number"], member["joined_on"]) == ("Pending", None, None)
    member = await step(engine, society, member, "review")
    assert (member["status"], member["member_number"]) == ("UnderReview", None)
    assert now < member["reviewed_at"] < datetime.now(UTC)
    member = await step(engine, society, member, "approve")
    assert (member["status"], member["member_number"]) == ("Approved", f"UML-{now.year}-F-000001")
    assert (member["joined_on"], member["approved_at"] > member["reviewed_at"]) == (now.date(), True)
    assert await memberships(owner, member) == []
    member = await step(engine, society, member, "activate")
    assert await memberships(owner, member) == [True]
    member = await step(engine, society, member, "suspend", reason="two contributions behind")
    assert (member["status_reason"], await memberships(owner, member)) == ("two contributions behind", [False])
    member = await step(engine, society, member, "resume")
    assert (member["status_reason"], await memberships(owner, member)) == (None, [False, True])
    member = await step(engine, society, member, "report-death", died_on=date(2024, 2, 29), reason="told by the son")
    assert (member["status"], member["died_on"]) == ("Deceased", date(2024, 2, 29))
    assert await memberships(owner, member) == [False, False]
    assert member["member_number"] == f"UML-{now.year}-F-000001"
    assert await broken_invariants(owner) == []


@pytest.mark.parametrize("name", STEPS)
async def test_each_step_follows_the_map_and_nothing_else(
    engine: Engine, owner: asyncpg.Connection, society: Society, name: str
) -> None:
    for status in STATES:
        member = await put(owner, await register(engine, society), status)
        allowed = (status, STEPS[name]) in MEMBER_TRANSITIONS and status in STEP_BEGINS.get(name, STATES)
        if allowed:
            assert (await step(engine, society, member, name, reason="x"))["status"] == STEPS[name]
        else:
            with pytest.raises(InvalidStatusTransitionError) as refused:
                await step(engine, society, member, name, reason="x")
            assert refused.value.context == {"current": status, "wanted": STEPS[name]}
            row = await owner.fetchrow("SELECT * FROM members WHERE member_id = $1", member["member_id"])
            assert row is not None
            assert dict(row) == member
        await owner.execute("DELETE FROM tier_memberships WHERE member_id = $1", member["member_id"])
        await owner.execute("DELETE FROM members WHERE member_id = $1", member["member_id"])


async def test_an_update_sets_no_status_that_has_a_step_of_its_own(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    by_update = {
        *(("Active", "Inactive"), ("Inactive", "Active"), ("Suspended", "Inactive"), ("Approved", "Inactive")),
        *(arrow for arrow in MEMBER_TRANSITIONS if arrow[1] == "Deceased"),
    }
    for current in STATES:
        for wanted in STATES:
            if current == wanted:
                continue
            member = await put(owner, await register(engine, society), current)
            change = update_in_a_transaction(engine, society, member, {"status": wanted})
            if (current, wanted) in by_update:
                changed = await change
                assert (changed["status"], changed["status_reason"]) == (wanted, None)
                assert (changed["died_on"] is not None) == (wanted == "Deceased")
            else:
                with pytest.raises(InvalidStatusTransitionError) as refused:
                    await change
                assert refused.value.context == {"current": current, "wanted": wanted}
                assert ("use the call" in str(refused.value)) == ((current, wanted) in MEMBER_TRANSITIONS)
            await owner.execute("DELETE FROM tier_memberships WHERE member_id = $1", member["member_id"])
            await owner.execute("DELETE FROM members WHERE member_id = $1", member["member_id"])


async def update_in_a_transaction(
    engine: Engine, society: Society, member: Member, changes: dict[str, object]
) -> Member:
    async with engine.database.transaction(society.tenant_id) as tx:
        return await update_member(tx, member["member_id"], member["version"], changes)


async def test_a_step_twice_is_taken_once(engine: Engine, society: Society) -> None:
    member = await register(engine, society)
    await step(engine, society, member, "review")
    with pytest.raises(ConcurrentModificationError):
        await step(engine, society, member, "review")


async def test_an_approval_that_is_undone_gives_its_number_back(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    first, second = [await walk(engine, society, "review") for _ in range(2)]

    class UndoneError(Exception):
        pass

    with pytest.raises(UndoneError):
        async with engine.database.transaction(society.tenant_id) as tx:
            given = await take_step(tx, first["member_id"], first["version"], "approve")
            raise UndoneError
    again = await step(engine, society, second, "approve")
    assert again["member_number"] == given["member_number"]
    assert await broken_invariants(owner) == []


async def test_each_gender_has_its_own_series(engine: Engine, society: Society) -> None:
    numbers = [(await walk(engine, society, "review", "approve", gender=g))["member_number"] for g in "FMOFM"]
    assert [number[-8:] for number in numbers] == ["F-000001", "M-000001", "O-000001", "F-000002", "M-000002"]


async def test_approvals_beside_an_import_that_brings_numbers(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    """The import brings the very numbers that the approvals are about to be given, and asks for some itself."""
    waiting = [await walk(engine, society, "review") for _ in range(40)]
    year = datetime.now(UTC).year
    lines = [f"Imported {n},F,A,UML-{year}-F-{n:06d}" for n in range(10, 400, 7)]
    lines += [f"Numbered {n},F,A," for n in range(60)]
    content = "\n".join(["full_name,gender,tier,member_number", *lines]).encode()
    async with engine.database.transaction(society.tenant_id) as tx:
        job = await start_import(engine, tx, io.BytesIO(content), society.user_id, dry_run=False)

    async def approve_all() -> None:
        for member in waiting:
            await step(engine, society, member, "approve")

    async with asyncio.TaskGroup() as all_at_once:
        all_at_once.create_task(approve_all())
        all_at_once.create_task(run_job(engine, society.tenant_id, job.job_id))
    assert await owner.fetchval("SELECT state FROM batch_jobs WHERE job_id = $1", job.job_id) == "Completed"
    refused = await owner.fetchval("SELECT count(*) FROM batch_job_log WHERE event = 'row_rejected'")
    numbers = await owner.fetchval(f"SELECT count(*) FROM members WHERE member_number LIKE 'UML-{year}-F-%'")
    assert numbers == len(waiting) + len(lines) - refused
    assert await broken_invariants(owner) == []


@pytest.mark.parametrize(
    ("died_on", "reason"), [(timedelta(days=1), "in the future"), (date(1799, 12, 31), "too far in the past")]
)
async def test_a_death_that_cannot_be_is_refused(
    engine: Engine, society: Society, died_on: date | timedelta, reason: str
) -> None:
    day = died_on if isinstance(died_on, date) else datetime.now(UTC).date() + died_on
    member = await walk(engine, society, *WAY)
    with pytest.raises(InvalidInputError, match=reason) as refused:
        await step(engine, society, member, "report-death", died_on=day)
    assert refused.value.context == {"field": "diedOn"}


async def test_a_death_without_a_day_is_todays(engine: Engine, society: Society) -> None:
    member = await step(engine, society, await walk(engine, society, *WAY), "report-death")
    assert member["died_on"] == datetime.now(UTC).date()


@pytest.mark.parametrize("name", ["suspend", "reject"])
async def test_the_database_wants_a_reason(engine: Engine, society: Society, name: str) -> None:
    member = await walk(engine, society, *(WAY if name == "suspend" else ()))
    with pytest.raises(asyncpg.CheckViolationError, match="members_reason_check"):
        await step(engine, society, member, name)


@pytest.mark.parametrize("name", ["activate", "suspend", "resume", "report-death"])
async def test_a_change_of_membership_waits_for_a_cycle_that_starts(
    engine: Engine, owner: asyncpg.Connection, society: Society, name: str
) -> None:
    """And then reads the clock: it is wholly after the cycle's `as_of`."""
    steps = {"activate": WAY[:2], "suspend": WAY, "resume": (*WAY, "suspend"), "report-death": WAY}
    member = await walk(engine, society, *steps[name])
    async with engine.database.transaction(society.tenant_id) as tx:
        await sql.lock_tier_exclusive(tx.connection, tier_id=society.tier_id)
        changing = asyncio.create_task(step(engine, society, member, name, reason="x"))
        await eventually(
            lambda: owner.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        )
        as_of = await tx.connection.fetchval("SELECT clock_timestamp()")
    await changing
    changed_at = await owner.fetchval(
        "SELECT max(greatest(valid_from, valid_to)) FROM tier_memberships WHERE member_id = $1", member["member_id"]
    )
    assert changed_at > as_of
    assert await broken_invariants(owner) == []


async def test_who_owes_is_who_is_active_at_the_start(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    owing = [await walk(engine, society, *steps) for steps in (WAY, (*WAY, "suspend", "resume"))]
    idle = [
        await walk(engine, society, *steps)
        for steps in ((), WAY[:1], WAY[:2], (*WAY, "suspend"), (*WAY, "report-death"))
    ]
    cycle_id = await start(engine, society, "inline")
    rows = await owner.fetch("SELECT member_id FROM contributions WHERE cycle_id = $1", cycle_id)
    owes: set[UUID] = {row["member_id"] for row in rows}
    assert {member["member_id"] for member in owing} <= owes
    assert not owes & {member["member_id"] for member in idle}
    assert len(owes) == society.members + 2
    assert await broken_invariants(owner) == []


async def test_steps_at_once_never_break_an_invariant(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    """Many officers, the same few members, whatever comes: each refusal is one that is known."""
    members = [(await walk(engine, society))["member_id"] for _ in range(5)]
    refusals: set[str] = set()

    async def officer(names: list[str]) -> None:
        for name in names:
            for member_id in members:
                async with engine.database.transaction(society.tenant_id) as tx:
                    row = await sql.get_member(tx.connection, tenant_id=tx.tenant_id, member_id=member_id)
                try:
                    await step(engine, society, row, name, reason="x")
                except GuthiError as error:
                    refusals.add(error.code)

    names = list(STEPS)
    async with asyncio.TaskGroup() as all_at_once:
        for n in range(6):
            all_at_once.create_task(officer((names[n:-1] + names[:n]) * 2 + ["report-death"]))
    assert refusals <= {"INVALID_STATUS_TRANSITION", "CONCURRENT_MODIFICATION"}
    assert await broken_invariants(owner) == []
