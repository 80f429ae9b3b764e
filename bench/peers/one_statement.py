"""One statement, as somebody would run it by hand: into the system's table, plainly or with ON CONFLICT DO NOTHING, or
into a table with what most people would give it: a stored uuidv7() key and a unique (cycle, member)."""

import asyncio
import os
import sys
from uuid import UUID

import asyncpg
from common import DATABASE_URL, NEW_RUN, ids, obey_async

INSERT = """
INSERT INTO {table} (tenant_id, cycle_id, member_id, contribution_amount, due_date)
SELECT tenant_id, $1, member_id, 100, current_date + 15 FROM tier_memberships
WHERE tenant_id = $2 AND tier_id = $3 AND member_id <> $4
  AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now()) {conflict}
"""
WAYS = {
    "plain": INSERT.format(table="contributions", conflict=""),
    "conflict": INSERT.format(table="contributions", conflict="ON CONFLICT DO NOTHING"),
    "usual": INSERT.format(table="bench_usual", conflict=""),
}


async def main():
    connection = await asyncpg.connect(DATABASE_URL)
    statement = WAYS[os.environ["BENCH_WAY"]]

    async def act(order):
        run = [*map(UUID, ids(order))]
        await connection.execute(NEW_RUN.format("$1", "$2", "$3", "$4"), *run)
        async with connection.transaction():
            await connection.execute(statement, *run)
            await connection.execute("UPDATE bench_runs SET status = 'Active' WHERE run_id = $1", run[0])

    await obey_async(act)


if __name__ == "__main__":
    if sys.argv[1] == "client":
        asyncio.run(main())
