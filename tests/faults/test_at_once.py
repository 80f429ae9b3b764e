"""Things that happen in the same instant: the last two shards end, a hundred cycles start."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import asyncpg

from core.settings import Settings
from db.database import Database, Transaction
from jobs.create_contributions import CreateContributions
from jobs.engine.engine import Engine
from jobs.engine.model import Job
from jobs.engine.runner import run_job
from tests.cycles import SMALL_STEPS, count_rows, job_of, log_of, shards_of, start, tuned
from tests.support import Society, Worker, assert_whole, eventually, make_society


class Gathering(CreateContributions):
    """Holds every batch, its rows made, until the test lets them all go."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = asyncio.Event()

    async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
        walked = await super().run_batch(tx, job, cursor, bound)
        self.inside += 1
        await self.go.wait()
        return walked


async def test_two_shards_that_end_in_the_same_instant_finish_the_job_once(
    engine: Engine, owner: asyncpg.Connection, settings: Settings
) -> None:
    society = await make_society(owner, members=2_000)
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    kind = Gathering()
    runner = tuned(engine, batch_rows=1_000, shard_rows=1_000)  # each shard is one batch
    runner = replace(runner, kinds={**engine.kinds, kind.name: kind})

    async def gathered() -> bool:
        return kind.inside == 2

    async def both_before_the_gate() -> bool:
        waiting: int = await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return waiting == 2

    async with asyncio.TaskGroup() as runs:
        runs.create_task(run_job(runner, society.tenant_id, job_id))
        await eventually(lambda: shards_of(owner, cycle_id), lambda shards: len(shards) == 2)
        runs.create_task(run_job(runner, society.tenant_id, job_id))
        await eventually(gathered)
        gatekeeper = await asyncpg.connect(settings.admin_database_url)
        async with gatekeeper.transaction():
            await gatekeeper.execute("SELECT FROM batch_jobs WHERE job_id = $1 FOR UPDATE", job_id)
            kind.go.set()
            await eventually(both_before_the_gate)
        await gatekeeper.close()
    assert [shard["done"] for shard in await shards_of(owner, cycle_id)] == [True, True]
    assert len(await log_of(owner, cycle_id, "job_completed")) == 1
    await assert_whole(owner, society, cycle_id)


async def test_a_hundred_starts_at_once_get_a_hundred_codes_without_a_gap(
    settings: Settings, engine: Engine, owner: asyncpg.Connection, start_worker: Callable[..., Worker], sampler: None
) -> None:
    societies = [await make_society(owner, members=20, prefix=prefix) for prefix in ("ONE", "TWO")]
    start_worker(**SMALL_STEPS)
    patient = settings.model_copy(update={"database_pool_size": 50, "database_pool_wait_seconds": 60.0})
    database = await Database.connect(patient)
    starter = replace(engine, database=database, settings=patient)

    async def start_one(society: Society) -> UUID:
        return await start(starter, society)

    try:
        async with asyncio.TaskGroup() as starts:
            tasks = [(society, starts.create_task(start_one(society))) for society in societies for _ in range(50)]
    finally:
        await database.close()
    for society in societies:
        codes = await owner.fetch(
            "SELECT cycle_code FROM contribution_cycles WHERE tenant_id = $1 ORDER BY cycle_code", society.tenant_id
        )
        assert [int(code["cycle_code"].rsplit("-", 1)[1]) for code in codes] == list(range(1, 51))

    async def all_active() -> bool:
        return not await owner.fetchval("SELECT count(*) FROM contribution_cycles WHERE cycle_status <> 'Active'")

    await eventually(all_active)
    for society, task in tasks:
        assert await count_rows(owner, task.result()) == society.members


async def test_a_start_that_is_rolled_back_leaves_no_gap(engine: Engine, owner: asyncpg.Connection) -> None:
    society = await make_society(owner, members=20)
    refused = replace(society, user_id=UUID(int=0))  # no such user: the last insert is refused, the number given back
    for society_or_not in (society, refused, society):
        try:
            await start(engine, society_or_not)
        except asyncpg.ForeignKeyViolationError:
            assert society_or_not is refused
    codes = await owner.fetch("SELECT cycle_code FROM contribution_cycles ORDER BY cycle_code")
    assert [int(code["cycle_code"].rsplit("-", 1)[1]) for code in codes] == [1, 2]
