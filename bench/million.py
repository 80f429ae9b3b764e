"""A million members: the whole job against one statement, and against the floor that the server sets."""

import asyncio
import time
from statistics import median

import asyncpg

from bench.report import Figure, at_least, at_most, spread, told
from bench.stage import Client, Stage, until_active
from tests.support import Society

OWING = """
SELECT tenant_id, $1::uuid, member_id, 100, current_date + 15 FROM tier_memberships
WHERE tenant_id = $2 AND tier_id = $3 AND member_id <> $4
  AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now())
"""
COLUMNS = "(tenant_id, cycle_id, member_id, contribution_amount, due_date)"
USUAL, HEAP = "bench_usual", "bench_heap"
_TYPES = """
    tenant_id uuid NOT NULL, cycle_id uuid NOT NULL, member_id uuid NOT NULL,
    contribution_amount numeric(14, 2) NOT NULL CHECK (contribution_amount > 0),
    contribution_status text NOT NULL DEFAULT 'Pending' CHECK (contribution_status IN ('Pending', 'Paid', 'Failed')),
    due_date date NOT NULL
"""


async def measure(stage: Stage, quick: bool) -> list[Figure]:
    members, rounds = (100_000, 3) if quick else (1_000_000, 5)
    society = await stage.society(members, "MIL")
    await stage.owner.execute(f"""
        CREATE TABLE {USUAL} (
            contribution_id uuid PRIMARY KEY DEFAULT uuidv7(), {_TYPES}, UNIQUE (cycle_id, member_id)
        );
        CREATE TABLE {HEAP} ({_TYPES});
    """)
    # In the month's partition, where a cycle that starts now has its rows too.
    cycle = await stage.owner.fetchval("SELECT uuidv7()")
    ways = {
        "job": lambda: _job(stage, society),
        "plain": lambda: _statement(stage.owner, "contributions", cycle, society),
        "usual": lambda: _statement(stage.owner, USUAL, cycle, society),
        "floor": lambda: _floor(stage, cycle, society),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    async with stage.workers(2):
        for turn in range(rounds + 1):
            for name, way in ways.items():
                await stage.clear()
                await stage.owner.execute(f"TRUNCATE {USUAL}, {HEAP}")
                await stage.superuser.execute("CHECKPOINT")
                took = await way()
                if turn:  # the first turn warms every cache and is thrown away
                    seconds[name].append(took)
    await stage.clear()
    await stage.owner.execute(f"DROP TABLE {USUAL}, {HEAP}")
    job, plain, usual, floor = (median(seconds[name]) for name in ways)
    behind = {name: spread(values, "s") for name, values in seconds.items()}
    size = f"{members:,} members"
    return [
        at_most(
            f"{size}, POST to `Active`, to one plain INSERT … SELECT into the same table",
            job / plain,
            1.15,
            " x",
            f"job: {behind['job']}; statement: {behind['plain']}",
        ),
        at_least(
            f"{size}, faster than one INSERT … SELECT with a stored uuidv7 key and unique (cycle, member)",
            usual / job,
            2.2,
            " x",
            behind["usual"],
        ),
        told(f"{size}, to the floor: a heap without any index, two sessions", f"{job / floor:.2f} x", behind["floor"]),
    ]


async def _job(stage: Stage, society: Society) -> float:
    client = Client(stage.port, society.api_key)
    started = time.perf_counter()
    cycle = client.start_cycle(society)
    return await until_active(stage.owner, cycle["cycleId"], 0.005) - started


async def _statement(connection: asyncpg.Connection, table: str, cycle: str, society: Society, half: str = "") -> float:
    started = time.perf_counter()
    tag = await connection.execute(
        f"INSERT INTO {table} {COLUMNS} {OWING} {half}", cycle, society.tenant_id, society.tier_id, society.dead
    )
    assert half or tag == f"INSERT 0 {society.members}", tag
    return time.perf_counter() - started


async def _floor(stage: Stage, cycle: str, society: Society) -> float:
    middle = await stage.owner.fetchval(
        "SELECT member_id FROM tier_memberships WHERE tenant_id = $1 ORDER BY member_id OFFSET $2 LIMIT 1",
        society.tenant_id,
        society.members // 2,
    )
    halves = (f"AND member_id <= '{middle}'", f"AND member_id > '{middle}'")
    other = await asyncpg.connect(stage.postgres.admin_url)
    try:
        sessions = zip((stage.owner, other), halves, strict=True)
        return max(await asyncio.gather(*(_statement(s, HEAP, cycle, society, half) for s, half in sessions)))
    finally:
        await other.close()
