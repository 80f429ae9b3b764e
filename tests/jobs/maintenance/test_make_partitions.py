"""Partitions are made ahead, and what came too early for them is not lost."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from jobs.engine.engine import Engine
from jobs.invariants import broken_invariants
from jobs.maintenance import run_maintenance
from jobs.maintenance.make_partitions import MONTHS_AHEAD
from tests.jobs.test_create_contributions import start
from tests.support import Society, assert_whole


@pytest.fixture
async def months(engine: Engine) -> list[str]:
    """The partitions of this month and the next two: made, as the month may have turned since the template was."""
    await run_maintenance(engine, "make_partitions")
    now = datetime.now(UTC)
    numbers = [now.year * 12 + now.month - 1 + ahead for ahead in range(MONTHS_AHEAD + 1)]
    return [f"contributions_{number // 12}_{number % 12 + 1:02}" for number in numbers]


async def partitions(owner: asyncpg.Connection) -> list[str]:
    rows = await owner.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'contributions'::regclass"
    )
    return sorted(row["name"] for row in rows)


async def test_partitions_are_made_two_months_ahead_and_a_repeat_makes_none(
    engine: Engine, owner: asyncpg.Connection, months: list[str]
) -> None:
    await owner.execute(f"DROP TABLE {months[1]}, {months[2]}")
    assert await run_maintenance(engine, "make_partitions") == {"made": months[1:]}
    assert await run_maintenance(engine, "make_partitions") == {"made": []}
    assert (await partitions(owner))[-4:] == [*months, "contributions_default"]


async def test_two_workers_may_make_partitions_at_once(
    engine: Engine, owner: asyncpg.Connection, months: list[str]
) -> None:
    await owner.execute(f"DROP TABLE {months[1]}, {months[2]}")
    results = await asyncio.gather(*(run_maintenance(engine, "make_partitions") for _ in range(4)))
    made = [name for result in results if result for name in result["made"]]
    assert sorted(made) == months[1:]
    assert None not in results


async def test_rows_that_fell_into_the_default_partition_move_to_their_own(
    engine: Engine, owner: asyncpg.Connection, society: Society, months: list[str]
) -> None:
    await owner.execute(f"DROP TABLE {months[0]}")
    cycle_id = await start(engine, society, "inline")
    (broken,) = await broken_invariants(owner)
    assert (broken.invariant, broken.detail) == ("broken_partitions", "100 rows have no partition of their own")
    assert await run_maintenance(engine, "make_partitions") == {"made": [months[0]]}
    await assert_whole(owner, society, cycle_id)
    row = await owner.fetchrow(
        "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = $1::text::regclass", months[0]
    )
    assert tuple(row) == (True, True)
