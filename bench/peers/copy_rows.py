"""COPY from Python: the members read, their rows streamed back in one transaction. No queue: the client does it."""

import asyncio
import sys
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
from common import DATABASE_URL, NEW_RUN, ids, obey_async

MEMBERS = """
SELECT member_id FROM tier_memberships WHERE tenant_id = $1 AND tier_id = $2 AND member_id <> $3
  AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now())
"""
COLUMNS = ("tenant_id", "cycle_id", "member_id", "contribution_amount", "due_date")


async def main():
    connection = await asyncpg.connect(DATABASE_URL)

    async def act(order):
        run_id, tenant_id, tier_id, dead = map(UUID, ids(order))
        await connection.execute(NEW_RUN.format("$1", "$2", "$3", "$4"), run_id, tenant_id, tier_id, dead)
        due = date.today() + timedelta(days=15)
        async with connection.transaction():
            members = await connection.fetch(MEMBERS, tenant_id, tier_id, dead)
            rows = ((tenant_id, run_id, member["member_id"], Decimal(100), due) for member in members)
            await connection.copy_records_to_table("contributions", columns=COLUMNS, records=rows)
            await connection.execute("UPDATE bench_runs SET status = 'Active' WHERE run_id = $1", run_id)

    await obey_async(act)


if __name__ == "__main__":
    if sys.argv[1] == "client":
        asyncio.run(main())
