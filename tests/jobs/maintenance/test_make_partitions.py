"""Partitions are made ahead, and what came too early for them is not lost."""

import asyncpg

from jobs.engine.engine import Engine
from jobs.invariants import broken_invariants
from jobs.maintenance.make_partitions import make_partitions
from tests.jobs.test_create_contributions import start
from tests.support import Society, assert_whole


async def partitions(owner: asyncpg.Connection) -> list[str]:
    rows = await owner.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'contributions'::regclass"
    )
    return sorted(row["name"] for row in rows)


async def test_this_month_and_the_next_two_are_there_and_a_repeat_makes_none(
    engine: Engine, owner: asyncpg.Connection
) -> None:
    assert len(await partitions(owner)) == 4, "three months and the default"
    assert await make_partitions(engine) == {"made": []}


async def test_rows_that_fell_into_the_default_partition_move_to_their_own(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    this_month = (await partitions(owner))[0]
    await owner.execute(f"DROP TABLE {this_month}")
    cycle_id = await start(engine, society, "inline")
    (broken,) = await broken_invariants(owner)
    assert (broken.invariant, broken.detail) == ("broken_partitions", "100 rows have no partition of their own")
    assert await make_partitions(engine) == {"made": [this_month]}
    await assert_whole(owner, society, cycle_id)
    row = await owner.fetchrow(
        "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = $1::text::regclass", this_month
    )
    assert tuple(row) == (True, True)
