"""procrastinate: one task that loops over batches, the cursor committed with each."""

import asyncio
import sys

from common import BATCH, BATCH_ROWS, DATABASE_URL, GET_RUN, NEW_RUN, ids, obey_async, say
from procrastinate import App, PsycopgConnector, RetryStrategy
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

app = App(connector=PsycopgConnector(conninfo=DATABASE_URL))
pool = AsyncConnectionPool(DATABASE_URL, min_size=1, max_size=10, open=False, kwargs={"row_factory": dict_row})


@app.task(name="create_contributions", queue="cycles", retry=RetryStrategy(max_attempts=10, wait=2))
async def create_contributions(run_id):
    async with pool.connection() as connection:
        run = await (await connection.execute(GET_RUN, [run_id])).fetchone()
    while run["status"] != "Active":
        async with pool.connection() as connection:
            run |= await (await connection.execute(BATCH, {**run, "rows": BATCH_ROWS})).fetchone()


@app.periodic(cron="* * * * *")
@app.task(name="retry_stalled", queue="cycles", pass_context=True)
async def retry_stalled(context, timestamp):
    """What its documentation tells to add for workers that die."""
    for job in await context.app.job_manager.get_stalled_jobs():
        await context.app.job_manager.retry_job(job)


async def act(order):
    async with pool.connection() as connection:
        await connection.execute(NEW_RUN.format(*["%s"] * 4), ids(order))
    await create_contributions.defer_async(run_id=order["run_id"])


async def main(role):
    await pool.open()
    async with app.open_async():
        if role == "setup":
            await app.schema_manager.apply_schema_async()
        elif role == "worker":
            working = asyncio.create_task(app.run_worker_async(queues=["cycles"], concurrency=5))
            say("ready")
            await working
        else:
            await obey_async(act)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
