"""Members join, leave, move and die while the job runs: who owes is the set at the cycle's start."""

import asyncio
import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core.settings import Settings
from db.queries import sql
from domain.members import update_member
from jobs.engine.engine import Engine
from tests.cycles import SMALL_STEPS, becomes, count_rows, frozen, start, thaw
from tests.support import Society, Worker, assert_whole, eventually, make_society

StartWorker = Callable[..., Worker]


async def second_tier(owner: asyncpg.Connection, society: Society) -> UUID:
    async with owner.transaction():
        tier_id: UUID = await owner.fetchval(
            "INSERT INTO tiers (tenant_id, code, name, contribution_amount, benefit_amount)"
            " VALUES ($1, 'B', 'Tier B', 50, 1000) RETURNING tier_id",
            society.tenant_id,
        )
        await owner.execute("SELECT adopt_rows()")  # it came by SQL, so its first event has to as well
    return tier_id


async def who_owes(owner: asyncpg.Connection, society: Society) -> set[UUID]:
    rows = await owner.fetch(
        "SELECT member_id FROM tier_memberships WHERE tier_id = $1 AND valid_to IS NULL", society.tier_id
    )
    return {row["member_id"] for row in rows}


async def who_has_one(owner: asyncpg.Connection, cycle_id: UUID) -> set[UUID]:
    return {
        row["member_id"]
        for row in await owner.fetch("SELECT member_id FROM contributions WHERE cycle_id = $1", cycle_id)
    }


async def change(engine: Engine, society: Society, member_id: UUID, **changes: Any) -> None:
    async with engine.database.transaction(society.tenant_id) as tx:
        member = await sql.get_member(tx.connection, tenant_id=society.tenant_id, member_id=member_id)
        await update_member(tx, member_id, member["version"], changes)


async def join(owner: asyncpg.Connection, society: Society, number: str) -> UUID:
    """As an import of one member makes it: shared lock, then the clock."""
    async with owner.transaction():
        await sql.lock_tier_shared(owner, tier_id=society.tier_id)
        member_id: UUID = await owner.fetchval(
            "INSERT INTO members (tenant_id, member_number, full_name, gender, status, tier_id, joined_on)"
            " VALUES ($1, $2, 'New', 'F', 'Active', $3, '2025-01-01') RETURNING member_id",
            society.tenant_id,
            number,
            society.tier_id,
        )
        await sql.open_membership(owner, tenant_id=society.tenant_id, member_id=member_id, tier_id=society.tier_id)
        await owner.execute("SELECT adopt_rows()")
    return member_id


async def test_the_set_is_the_one_at_the_start(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=4_000)
    tier_b = await second_tier(owner, society)
    cycle_id = await start(engine, society)
    expected = await who_owes(owner, society)
    worker = start_worker(**SMALL_STEPS | {"GUTHI_LEASE_SECONDS": 60}, GUTHI_FAULTS="after_commit=freeze@5")
    await frozen(worker)
    members = sorted(expected)
    kinds: list[dict[str, Any]] = [{"status": "Inactive"}, {"tier_id": tier_b}, {"status": "Deceased"}]
    # From both ends and the middle: some have their contribution already, some do not yet.
    for n, member_id in enumerate([*members[:10], *members[1_990:2_010], *members[-30:]]):
        await change(engine, society, member_id, **kinds[n % 3])
        await join(owner, society, f"NEW-{n}")
    assert 0 < await count_rows(owner, cycle_id) < 4_000
    thaw(worker)
    await becomes(owner, cycle_id, "Active")
    assert await who_has_one(owner, cycle_id) == expected
    await assert_whole(owner, society, cycle_id)

    next_one = await start(engine, society)
    await becomes(owner, next_one, "Active")
    assert await who_has_one(owner, next_one) == await who_owes(owner, society)


async def test_a_member_who_leaves_and_comes_back_meanwhile_owes_once(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=1_000)
    last = max(await who_owes(owner, society))
    cycle_id = await start(engine, society)
    await change(engine, society, last, status="Inactive")
    await change(engine, society, last, status="Active")
    start_worker(**SMALL_STEPS)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)


@pytest.mark.parametrize("seed", range(2))
async def test_changes_at_the_very_moment_of_the_start(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None, seed: int
) -> None:
    """Whatever the order turns out to be, each change is wholly before a start or wholly after it."""
    chance = random.Random(seed)
    society = await make_society(owner, members=500)
    tier_b = await second_tier(owner, society)
    members = sorted(await who_owes(owner, society))
    start_worker(**SMALL_STEPS)
    kinds: list[dict[str, Any]] = [{"status": "Inactive"}, {"tier_id": tier_b}, {"status": "Deceased"}]

    async def keep_changing(share: list[UUID]) -> None:
        for member_id in share:
            await change(engine, society, member_id, **chance.choice(kinds))

    async with asyncio.TaskGroup() as all_at_once:
        for n in range(4):
            all_at_once.create_task(keep_changing(members[n::8]))
        starts = [all_at_once.create_task(start(engine, society)) for _ in range(4)]
    for started in starts:
        await becomes(owner, started.result(), "Active")  # the sampler compares the rows with the memberships


async def test_a_start_waits_for_a_change_that_has_begun_and_sees_all_of_it(
    engine: Engine, owner: asyncpg.Connection, settings: Settings, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=500)
    start_worker(**SMALL_STEPS)
    leaver = min(await who_owes(owner, society))
    async with engine.database.transaction(society.tenant_id) as tx:
        await update_member(tx, leaver, 1, {"status": "Inactive"})
        starting = asyncio.create_task(start(engine, society))
        await eventually(
            lambda: owner.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        )
    cycle_id = await starting
    await becomes(owner, cycle_id, "Active")
    has_one = await who_has_one(owner, cycle_id)
    assert leaver not in has_one
    assert len(has_one) == 499
