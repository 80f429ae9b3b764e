"""What the daily jobs do, and that a second run does no harm."""

import asyncpg

from jobs.engine.engine import Engine
from jobs.maintenance import run_maintenance
from tests.cycles import tuned
from tests.support import Society


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
