"""arq as it is commonly used: one job lists the members, one job for each chunk of them inserts its rows."""

import asyncio
import sys
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
from arq import create_pool, run_worker
from arq.connections import RedisSettings
from common import DATABASE_URL, NEW_RUN, REDIS_URL, ids, obey_async, say

CHUNK = 1_000
QUEUE = "bench-arq"
REDIS = RedisSettings.from_dsn(REDIS_URL)


async def create_contributions(ctx, run_id):
    async with ctx["pool"].acquire() as connection:
        run = await connection.fetchrow("SELECT * FROM bench_runs WHERE run_id = $1", UUID(run_id))
        rows = await connection.fetch(
            "SELECT member_id FROM tier_memberships WHERE tenant_id = $1 AND tier_id = $2 AND member_id <> $3"
            " AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now()) ORDER BY member_id",
            run["tenant_id"],
            run["tier_id"],
            run["dead"],
        )
        await connection.execute("UPDATE bench_runs SET total = $2 WHERE run_id = $1", UUID(run_id), len(rows))
    for at in range(0, len(rows), CHUNK):
        members = [str(row["member_id"]) for row in rows[at : at + CHUNK]]
        await ctx["redis"].enqueue_job("insert_chunk", run_id, str(run["tenant_id"]), members, _queue_name=QUEUE)


async def insert_chunk(ctx, run_id, tenant_id, members):
    due = date.today() + timedelta(days=15)
    rows = [(UUID(tenant_id), UUID(run_id), UUID(member), Decimal(100), due) for member in members]
    async with ctx["pool"].acquire() as connection, connection.transaction():
        await connection.executemany(
            "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            rows,
        )
        await connection.execute(
            "UPDATE bench_runs SET processed = processed + $2,"
            " status = CASE WHEN processed + $2 = total THEN 'Active' ELSE status END WHERE run_id = $1",
            UUID(run_id),
            len(members),
        )


async def startup(ctx):
    ctx["pool"] = await asyncpg.create_pool(DATABASE_URL, max_size=10)
    say("ready")


class WorkerSettings:
    functions = (create_contributions, insert_chunk)
    on_startup = startup
    redis_settings = REDIS
    queue_name = QUEUE


async def main():
    redis, connection = await create_pool(REDIS), await asyncpg.connect(DATABASE_URL)

    async def act(order):
        await connection.execute(NEW_RUN.format("$1", "$2", "$3", "$4"), *map(UUID, ids(order)))
        await redis.enqueue_job("create_contributions", order["run_id"], _queue_name=QUEUE)

    await obey_async(act)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.set_event_loop(asyncio.new_event_loop())  # arq asks for one that Python no longer makes by itself
        run_worker(WorkerSettings)
    elif sys.argv[1] == "client":
        asyncio.run(main())
