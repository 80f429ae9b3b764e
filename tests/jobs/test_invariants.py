"""Each invariant query finds what breaks it, and names it; on a whole database all are silent."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from db.queries import SQL_ROOT
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.invariants import INVARIANTS, broken_invariants
from jobs.maintenance import run_maintenance
from tests.cycles import job_of, start, steer, tuned
from tests.support import Society, make_society, unguarded


@pytest.fixture
async def active(engine: Engine, owner: asyncpg.Connection, society: Society) -> UUID:
    return await start(engine, society, "inline")


async def found(owner: asyncpg.Connection) -> set[str]:
    return {broken.invariant for broken in await broken_invariants(owner)}


async def test_a_whole_database_is_silent_in_every_state(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    for verbs in ((), ("pause",), ("cancel",), ("pause", "resume"), ("pause", "cancel")):
        job_id = (await job_of(owner, await start(engine, society)))["job_id"]
        for verb in verbs:
            await steer(engine, society, verb, job_id)
        assert await broken_invariants(owner) == [], verbs
    await start(engine, society, "inline")
    assert await broken_invariants(owner) == []


PLANTED = {
    "a row goes missing": (
        "DELETE FROM contributions WHERE member_id = {member}",
        {"broken_progress", "broken_active_cycles"},
    ),
    "a row too many": (
        "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)"
        " VALUES ({tenant}, {cycle}, {stranger}, 1, '2030-01-01')",
        {"broken_progress", "broken_active_cycles"},
    ),
    "one member for another": (
        "UPDATE contributions SET member_id = {stranger} WHERE member_id = {member}",
        {"broken_active_cycles"},
    ),
    "the deceased owes": (
        "UPDATE contributions SET member_id = {dead} WHERE member_id = {member}",
        {"broken_active_cycles"},
    ),
    "the shards say more": (
        "UPDATE batch_job_shards SET processed = processed + 1 WHERE job_id = {job}",
        {"broken_progress"},
    ),
    "the total is wrong": (
        "UPDATE contribution_cycles SET total_members = 99",
        {"broken_active_cycles", "broken_events"},
    ),
    "a paid one is not counted": (
        "UPDATE contributions SET contribution_status = 'Paid' WHERE member_id = {member}",
        {"broken_active_cycles"},
    ),
    "a given up one is not counted": (
        "UPDATE contributions SET contribution_status = 'Failed' WHERE member_id = {member}",
        {"broken_active_cycles"},
    ),
    "the job says otherwise": ("UPDATE batch_jobs SET state = 'Failed' WHERE job_id = {job}", {"broken_states"}),
    "a finished job has work left": ("UPDATE batch_job_shards SET done = false WHERE job_id = {job}", {"broken_jobs"}),
    "a lease on a finished job": (
        "UPDATE batch_job_shards SET done = false, lease_token = {stranger}, lease_expires_at = now()"
        " WHERE job_id = {job}",
        {"broken_jobs"},
    ),
    "an event is missing": ("DELETE FROM events WHERE version = 1", {"broken_events"}),
    "the last event tells another state": (
        'UPDATE events SET payload = payload || \'{{"cycleStatus": "Failed"}}\' WHERE version = 2',
        {"broken_events"},
    ),
    "a change without an event": ("UPDATE contribution_cycles SET collected_amount = 5", {"broken_events"}),
    "an active member without a membership": (
        "UPDATE tier_memberships SET valid_to = clock_timestamp() WHERE member_id = {member}",
        {"broken_memberships"},
    ),
    "a membership of somebody who is not active": (
        "UPDATE members SET status = 'Inactive' WHERE member_id = {member}",
        {"broken_memberships", "broken_events"},
    ),
    "a membership in another tier": (
        "WITH tier AS (INSERT INTO tiers (tenant_id, code, name, contribution_amount, benefit_amount)"
        " VALUES ({tenant}, 'B', 'B', 1, 1) RETURNING tier_id)"
        " UPDATE members SET tier_id = tier.tier_id FROM tier WHERE member_id = {member}",
        {"broken_memberships", "broken_events"},
    ),
    "a membership of the dead": (
        "INSERT INTO tier_memberships (tenant_id, tier_id, member_id, valid_from)"
        " SELECT tenant_id, tier_id, member_id, clock_timestamp() FROM members WHERE member_id = {dead}",
        {"broken_memberships"},
    ),
    "a gap in the codes": ("UPDATE counters SET value = value + 1", {"broken_counters"}),
    "a code that no counter gave": ("DELETE FROM counters", {"broken_counters"}),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_a_planted_break_is_found(
    owner: asyncpg.Connection, society: Society, active: UUID, planted: str
) -> None:
    statement, expected = PLANTED[planted]
    member = await owner.fetchval("SELECT min(member_id::text) FROM contributions")
    job = await job_of(owner, active)
    names = {
        "tenant": society.tenant_id,
        "cycle": active,
        "member": member,
        "dead": society.dead,
        "job": job["job_id"],
        "stranger": uuid4(),
    }
    async with unguarded(owner, "batch_jobs", "members"):
        await owner.execute(statement.format(**{name: f"'{value}'" for name, value in names.items()}))
    assert await found(owner) == expected


async def test_an_unfinished_job_without_anything_to_run_is_found(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    job_id = (await job_of(owner, await start(engine, society)))["job_id"]
    await owner.execute("UPDATE batch_job_shards SET done = true WHERE job_id = $1", job_id)
    assert await found(owner) == {"broken_jobs"}


async def test_a_cycle_without_a_job_is_found(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    cycle_id = await start(engine, society)
    await owner.execute("UPDATE batch_jobs SET subject_id = $1 WHERE subject_id = $2", uuid4(), cycle_id)
    assert "broken_states" in await found(owner)


async def test_rows_in_the_default_partition_are_found(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    for name in await owner.fetch(
        "SELECT inhrelid::regclass::text AS n FROM pg_inherits WHERE inhparent = 'contributions'::regclass"
    ):
        if name["n"] != "contributions_default":
            await owner.execute(f"DROP TABLE {name['n']}")
    await start(engine, society, "inline")
    (broken,) = await broken_invariants(owner)
    assert (broken.invariant, broken.tenant_id) == ("broken_partitions", society.tenant_id)
    assert "100 rows" in broken.detail


async def test_a_break_is_its_tenants_own(
    engine: Engine, owner: asyncpg.Connection, society: Society, active: UUID
) -> None:
    other = await make_society(owner, members=5, prefix="OTH")
    await start(engine, other, "inline")
    await owner.execute("DELETE FROM contributions WHERE cycle_id = $1", active)
    assert {broken.tenant_id for broken in await broken_invariants(owner)} == {society.tenant_id}


def test_every_query_of_the_file_is_asked() -> None:
    text = (SQL_ROOT / "queries" / "invariants.sql").read_text()
    named = {line.removeprefix("-- name: ").strip() for line in text.splitlines() if line.startswith("-- name: ")}
    assert named == set(INVARIANTS)


async def test_reconcile_says_what_is_broken(
    engine: Engine, owner: asyncpg.Connection, society: Society, active: UUID
) -> None:
    assert await run_maintenance(engine, "reconcile") == {"tenants": 1, "broken": 0}
    await owner.execute("DELETE FROM contributions WHERE cycle_id = $1", active)
    told = await run_maintenance(engine, "reconcile")
    assert told is not None
    assert told["broken"] == 2


async def test_a_job_in_the_middle_breaks_nothing(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    for point in ("after_commit", "before_commit"):
        await run_job(tuned(engine, batch_rows=10, faults=f"{point}=disconnect@3"), society.tenant_id, job_id)
        assert await broken_invariants(owner) == []
