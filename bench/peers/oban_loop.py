"""Oban for Python: one job loops over batches, the cursor committed with each, and looks whether it was cancelled."""

import asyncio
import sys

from common import BATCH, BATCH_ROWS, DATABASE_URL, GET_RUN, NEW_RUN, ids, obey_async, say
from oban import Cancel, Oban, worker
from oban.schema import install
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

pool = AsyncConnectionPool(DATABASE_URL, min_size=1, max_size=10, open=False)
jobs: dict[str, int] = {}


@worker(queue="cycles", max_attempts=20)
class CreateContributions:
    async def process(self, job):
        async with pool.connection() as connection:
            run = await (
                await connection.cursor(row_factory=dict_row).execute(GET_RUN, [job.args["run_id"]])
            ).fetchone()
        while run["status"] != "Active":
            if job.cancelled():
                return Cancel("by an operator")
            async with pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                run |= await (await cursor.execute(BATCH, {**run, "rows": BATCH_ROWS})).fetchone()
        return None


async def act(oban, order):
    if order["do"] == "stop":
        await oban.cancel_job(jobs[order["run_id"]])
        return
    async with pool.connection() as connection:
        await connection.execute(NEW_RUN.format(*["%s"] * 4), ids(order))
        job = await CreateContributions.enqueue({"run_id": order["run_id"]}, conn=connection)
    jobs[order["run_id"]] = job.id


async def main(role):
    await pool.open()
    if role == "setup":
        await install(pool)
    elif role == "worker":
        async with Oban(pool=pool, queues={"cycles": 5}):
            say("ready")
            await asyncio.Event().wait()
    else:
        async with Oban(pool=pool) as oban:
            await obey_async(lambda order: act(oban, order))


if __name__ == "__main__":
    sys.modules["oban_loop"] = sys.modules["__main__"]  # how a worker finds the class by its name
    asyncio.run(main(sys.argv[1]))
