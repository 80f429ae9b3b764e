"""Pause, resume and cancel at random moments: when they have answered, no further row appears."""

import asyncio
import random
from collections.abc import Callable
from uuid import UUID

import asyncpg
import pytest

from core.errors import InvalidStatusTransitionError
from jobs.engine.engine import Engine
from tests.cycles import SMALL_STEPS, becomes, count_rows, job_of, rows_reach, shards_of, slow_batches, start, steer
from tests.support import Worker, assert_whole, cycle_status, eventually, make_society

StartWorker = Callable[..., Worker]
MEMBERS = 6_000


async def still(owner: asyncpg.Connection, cycle_id: UUID, then: int) -> None:
    """Looks again while the workers have had every chance to write, as sweeps and other jobs go by."""
    for _ in range(15):
        await asyncio.sleep(0.01)
        assert await count_rows(owner, cycle_id) == then


@pytest.mark.parametrize("seed", range(3))
async def test_pause_and_resume_at_random_moments(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None, seed: int
) -> None:
    chance = random.Random(seed)
    society = await make_society(owner, members=MEMBERS)
    await slow_batches(owner, 0.03)
    for _ in range(2):
        start_worker(**SMALL_STEPS)
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    await rows_reach(owner, cycle_id, 0)
    paused = 0
    for _ in range(6):
        await asyncio.sleep(chance.uniform(0, 0.1))
        try:
            await steer(engine, society, "pause", job_id)
        except InvalidStatusTransitionError:
            assert await cycle_status(owner, cycle_id) == "Active"  # it was quicker
            break
        paused += 1
        rows = await count_rows(owner, cycle_id)
        await still(owner, cycle_id, rows)
        assert sum(shard["processed"] for shard in await shards_of(owner, cycle_id)) == rows
        await steer(engine, society, "resume", job_id)
    assert paused
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)


@pytest.mark.parametrize("seed", range(4))
async def test_cancel_at_a_random_moment_leaves_no_row(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None, seed: int
) -> None:
    chance = random.Random(seed)
    society = await make_society(owner, members=MEMBERS)
    await slow_batches(owner, 0.01)
    start_worker(**SMALL_STEPS)
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    wanted = chance.randrange(MEMBERS // 2)
    await eventually(lambda: count_rows(owner, cycle_id), lambda rows: rows >= wanted)
    if seed % 2:  # also from where it is paused
        await steer(engine, society, "pause", job_id)
    await steer(engine, society, "cancel", job_id)
    assert (await job_of(owner, cycle_id))["state"] == "Cancelled"
    assert await cycle_status(owner, cycle_id) == "Cancelled"
    seen = await count_rows(owner, cycle_id)

    async def removed() -> bool:
        nonlocal seen
        rows = await count_rows(owner, cycle_id)
        assert rows <= seen, "a row appeared after cancel had answered"
        seen = rows
        job = await job_of(owner, cycle_id, "remove_contributions")
        return job["state"] == "Completed"

    await eventually(removed)
    assert await count_rows(owner, cycle_id) == 0
    with pytest.raises(InvalidStatusTransitionError):
        await steer(engine, society, "retry", job_id)


async def test_cancel_of_a_failed_job_removes_what_it_had_made(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=2_000)
    cycle_id = await start(engine, society)
    start_worker(**SMALL_STEPS, GUTHI_FAULTS="before_commit=error@5")
    await becomes(owner, cycle_id, "Failed")
    assert await count_rows(owner, cycle_id) > 0
    job = await job_of(owner, cycle_id)
    await steer(engine, society, "cancel", job["job_id"])
    await becomes(owner, cycle_id, "Cancelled")
    await eventually(lambda: count_rows(owner, cycle_id), lambda rows: rows == 0)


async def test_pause_before_the_first_ring_is_heard(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=1_000)
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    await steer(engine, society, "pause", job_id)
    start_worker(**SMALL_STEPS)
    await eventually(lambda: owner.fetchval("SELECT count(*) FROM maintenance_runs"), lambda sweeps: sweeps >= 2)
    assert await count_rows(owner, cycle_id) == 0
    await steer(engine, society, "resume", job_id)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
