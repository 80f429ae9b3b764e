"""The first job, from start to `Active`, in this process and in a real worker."""

from collections.abc import Callable
from uuid import UUID

import asyncpg
import pytest

from domain.cycles import NewCycle
from jobs.create_contributions import Strategy, start_cycle
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from tests.support import Society, Worker, assert_whole, cycle_status, eventually, make_society


async def start(engine: Engine, society: Society, strategy: Strategy = "queued", **more: int) -> UUID:
    async with engine.database.transaction(society.tenant_id) as tx:
        new = NewCycle(society.tier_id, society.dead)
        cycle, _ = await start_cycle(engine, tx, new, society.user_id, strategy=strategy, **more)
    cycle_id: UUID = cycle["cycle_id"]
    return cycle_id


async def job_of(owner: asyncpg.Connection, cycle_id: UUID, kind: str = "create_contributions") -> asyncpg.Record:
    return await owner.fetchrow("SELECT * FROM batch_jobs WHERE subject_id = $1 AND kind = $2", cycle_id, kind)


@pytest.mark.parametrize("strategy", ["queued", "inline", "auto"])
async def test_every_member_who_owes_gets_one_contribution(
    engine: Engine, owner: asyncpg.Connection, society: Society, strategy: Strategy
) -> None:
    cycle_id = await start(engine, society, strategy)
    if strategy == "queued":
        assert await cycle_status(owner, cycle_id) == "Initializing"
        job = await job_of(owner, cycle_id)
        await run_job(engine, society.tenant_id, job["job_id"])
    await assert_whole(owner, society, cycle_id)


async def test_a_worker_process_hears_the_bell(
    engine: Engine, owner: asyncpg.Connection, start_worker: Callable[..., Worker]
) -> None:
    society = await make_society(owner, members=5_000)
    start_worker()
    cycle_id = await start(engine, society)
    await eventually(lambda: cycle_status(owner, cycle_id), lambda status: status != "Initializing")
    await assert_whole(owner, society, cycle_id)
    notified = await eventually(
        lambda: owner.fetch("SELECT member_count, total_amount FROM notifications WHERE cycle_id = $1", cycle_id)
    )
    assert [(n["member_count"], n["total_amount"]) for n in notified] == [(2_500, 250_000)] * 2
