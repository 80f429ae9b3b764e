"""What the daily jobs do, and that a second run does no harm."""

import asyncio
from datetime import UTC, datetime

import asyncpg

from jobs.engine.engine import Engine
from jobs.maintenance import run_maintenance
from tests.cycles import tuned
from tests.support import Society

PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'contributions'::regclass ORDER BY 1"


async def partitions(owner: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await owner.fetch(PARTITIONS)]


def months_ahead(number: int) -> list[str]:
    now = datetime.now(UTC)
    months = [now.year * 12 + now.month - 1 + ahead for ahead in range(number + 1)]
    return [f"contributions_{month // 12}_{month % 12 + 1:02}" for month in months]


async def test_partitions_are_made_two_months_ahead(engine: Engine, owner: asyncpg.Connection) -> None:
    wanted = months_ahead(2)
    await owner.execute(f"DROP TABLE {wanted[1]}, {wanted[2]}")
    assert await run_maintenance(engine, "make_partitions") == {"made": wanted[1:]}
    assert await run_maintenance(engine, "make_partitions") == {"made": []}
    assert await partitions(owner) == [*wanted, "contributions_default"]


async def test_a_new_partition_is_protected_like_the_others(engine: Engine, owner: asyncpg.Connection) -> None:
    wanted = months_ahead(2)
    await owner.execute(f"DROP TABLE {wanted[2]}")
    await run_maintenance(engine, "make_partitions")
    assert await owner.fetchval(
        "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE oid = $1::text::regclass", wanted[2]
    )


async def test_two_workers_may_make_partitions_at_once(engine: Engine, owner: asyncpg.Connection) -> None:
    wanted = months_ahead(2)
    await owner.execute(f"DROP TABLE {wanted[1]}, {wanted[2]}")
    results = await asyncio.gather(*(run_maintenance(engine, "make_partitions") for _ in range(4)))
    made = [name for result in results if result for name in result["made"]]
    assert sorted(made) == wanted[1:]
    assert None not in results


async def test_idempotency_keys_go_after_their_time(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    await owner.execute(
        "INSERT INTO idempotency_keys (tenant_id, idempotency_key, request_sha256, status_code, answer, created_at)"
        " SELECT $1, age::text, '', 202, '{}', now() - age * interval '1 hour'"
        " FROM unnest(ARRAY[0, 23, 25, 100]) AS age",
        society.tenant_id,
    )
    assert await run_maintenance(engine, "purge_idempotency_keys") == {"purged": 2}
    assert await run_maintenance(engine, "purge_idempotency_keys") == {"purged": 0}
    left = await owner.fetch("SELECT idempotency_key FROM idempotency_keys ORDER BY created_at DESC")
    assert [row[0] for row in left] == ["0", "23"]
    assert await run_maintenance(tuned(engine, idempotency_hours=10), "purge_idempotency_keys") == {"purged": 1}


async def test_old_runs_of_the_sweeper_are_forgotten(engine: Engine, owner: asyncpg.Connection) -> None:
    await owner.execute(
        "INSERT INTO maintenance_runs (name, started_at, result)"
        " SELECT name, now() - age, '{}' FROM unnest(ARRAY['sweep', 'reconcile']) AS name,"
        " unnest(ARRAY['2 hours', '100 days']::interval[]) AS age"
    )
    for name in ("sweep", "reconcile"):
        await run_maintenance(engine, name)
    kept = await owner.fetch("SELECT name, count(*) FROM maintenance_runs GROUP BY name ORDER BY name")
    assert [tuple(row) for row in kept] == [("reconcile", 2), ("sweep", 1)]
