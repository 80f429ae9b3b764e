"""The scoreboard: never ahead of PostgreSQL, never turned back, never waited for."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from core.settings import Settings
from db.embedded import EmbeddedValkey
from jobs.engine.bell import connect_redis
from jobs.engine.engine import Engine
from jobs.engine.model import Job, JobState
from jobs.engine.progress import Progress, ProgressBoard, ShardProgress, progress_key
from jobs.engine.runner import run_job
from jobs.invariants import broken_invariants
from tests.cycles import job_of, shards_of, start, steer, tuned
from tests.support import Society, assert_whole, eventually, make_society


@pytest.fixture
async def job(engine: Engine, owner: asyncpg.Connection, society: Society) -> Job:
    cycle_id = await start(engine, society)
    queued = Job.from_row(await job_of(owner, cycle_id))
    return replace(queued, state=JobState.PROCESSING, version=3, total=100)


async def shown(engine: Engine, job: Job) -> Progress | None:
    return await engine.progress.read(job.tenant_id, job.kind, job.subject_id)


async def test_a_writer_that_was_cancelled_is_followed_by_another(engine: Engine, job: Job) -> None:
    engine.progress.report(job, 1, ShardProgress(0, 10))
    writer = engine.progress._writer
    assert writer is not None
    writer.cancel()
    await asyncio.wait([writer])
    engine.progress.report(job, 1, ShardProgress(0, 20))
    await eventually(lambda: shown(engine, job), lambda now: now is not None and now.processed == 20)


async def test_a_new_job_is_shown_at_once(engine: Engine, job: Job) -> None:
    assert await shown(engine, job) == Progress(JobState.QUEUED, None, 0, 0.0)


async def test_a_late_write_of_an_older_run_turns_nothing_back(engine: Engine, job: Job) -> None:
    await engine.progress.write(job, 2, ShardProgress(0, 40, 10.0), ShardProgress(1, 30, 10.0))
    await engine.progress.write(replace(job, version=2, state=JobState.QUEUED, total=None), 1, ShardProgress(0, 10))
    assert await shown(engine, job) == Progress(JobState.PROCESSING, 100, 70, 20.0)
    completed = replace(job, version=4, state=JobState.COMPLETED)
    await engine.progress.write(completed, 2, ShardProgress(0, 50), ShardProgress(1, 50))
    await engine.progress.write(job, 2, ShardProgress(1, 40, 99.0))
    now = await shown(engine, job)
    assert now is not None
    assert (now.state, now.processed, now.percentage, now.seconds_left) == (JobState.COMPLETED, 100, 100, 0)


async def test_a_hash_that_lacks_a_shard_is_nothing(engine: Engine, job: Job) -> None:
    """As after a flush in the middle, when one runner has reported and the other not yet."""
    await engine.bell._redis.delete(progress_key(job.tenant_id, job.kind, job.subject_id))
    await engine.progress.write(job, 2, ShardProgress(1, 30))
    assert await shown(engine, job) is None
    await engine.progress.write(job, 2, ShardProgress(0, 20))
    assert (await shown(engine, job)) == Progress(JobState.PROCESSING, 100, 50, 0.0)


async def test_what_no_longer_moves_disappears_unless_it_is_final(engine: Engine, job: Job) -> None:
    key = progress_key(job.tenant_id, job.kind, job.subject_id)
    await engine.progress.write(job, 1, ShardProgress(0, 10))
    assert 0 < await engine.bell._redis.ttl(key) <= 5
    await engine.progress.write(replace(job, version=4, state=JobState.COMPLETED), 1, ShardProgress(0, 100))
    assert await engine.bell._redis.ttl(key) > 3_600


async def test_an_expired_hash_leaves_it_to_postgres(engine: Engine, owner: asyncpg.Connection, job: Job) -> None:
    await engine.bell._redis.delete(progress_key(job.tenant_id, job.kind, job.subject_id))
    assert await shown(engine, job) is None
    stored = Job.from_row(await job_of(owner, job.subject_id))
    known = Progress.from_rows(stored, await shards_of(owner, job.subject_id))
    assert known == Progress(JobState.QUEUED, None, 0, 0.0)


async def test_it_never_runs_ahead_of_postgres(engine: Engine, owner: asyncpg.Connection) -> None:
    society = await make_society(owner, members=2_000)
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    run = asyncio.create_task(run_job(tuned(engine, batch_rows=20), society.tenant_id, job_id))
    last = 0
    while not run.done():
        seen = await engine.progress.read(society.tenant_id, "create_contributions", cycle_id)
        stands = await owner.fetchval("SELECT sum(processed)::int FROM batch_job_shards WHERE job_id = $1", job_id)
        if seen is not None:
            assert last <= seen.processed <= stands
            last = seen.processed
        await asyncio.sleep(0)
    await run
    await assert_whole(owner, society, cycle_id)
    assert await broken_invariants(owner, engine.progress) == []


async def test_one_that_is_ahead_is_reported(engine: Engine, owner: asyncpg.Connection, job: Job) -> None:
    await engine.progress.write(job, 1, ShardProgress(0, 60))
    (broken,) = await broken_invariants(owner, engine.progress)
    assert broken.invariant == "redis_ahead"


async def test_a_failed_job_shows_what_stands(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    await run_job(tuned(engine, batch_rows=10, faults="before_commit=error@4"), society.tenant_id, job_id)
    seen = await engine.progress.read(society.tenant_id, "create_contributions", cycle_id)
    assert seen == Progress(JobState.FAILED, 100, 30, 0.0)
    await steer(engine, society, "retry", job_id)
    seen = await engine.progress.read(society.tenant_id, "create_contributions", cycle_id)
    assert seen == Progress(JobState.QUEUED, 100, 30, 0.0)


@pytest.mark.parametrize(
    ("state", "total", "processed", "rate", "percentage", "seconds_left"),
    [
        (JobState.QUEUED, None, 0, 0.0, 0, None),
        (JobState.PROCESSING, 1_000, 999, 10.0, 99, 1),
        (JobState.PROCESSING, 1_000, 1_000, 10.0, 99, 0),
        (JobState.PROCESSING, 1_000, 500, 0.0, 50, None),
        (JobState.COMPLETED, 0, 0, 0.0, 100, 0),
        (JobState.FAILED, 1_000, 500, 5.0, 50, 0),
        (JobState.PAUSED, 1_000, 500, 0.0, 50, None),
    ],
)
def test_percentage_and_time_left(
    state: JobState, total: int | None, processed: int, rate: float, percentage: int, seconds_left: int | None
) -> None:
    progress = Progress(state, total, processed, rate)
    assert (progress.percentage, progress.seconds_left) == (percentage, seconds_left)


@pytest.fixture
async def hanging(settings: Settings, tmp_path: Path) -> AsyncIterator[ProgressBoard]:
    """A board whose Redis has stopped answering."""
    with EmbeddedValkey(tmp_path) as valkey:
        redis = connect_redis(settings.model_copy(update={"redis_url": valkey.url}))
        await redis.ping()
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        board = ProgressBoard(redis, settings)
        yield board
        await board.close()
        os.kill(valkey.pid, signal.SIGCONT)
        await redis.aclose(close_connection_pool=True)


async def test_a_report_never_waits_for_a_redis_that_hangs(hanging: ProgressBoard, job: Job) -> None:
    for processed in range(10_000):
        hanging.report(job, 1, ShardProgress(0, processed))  # not even a coroutine: there is nothing to wait in
    assert len(hanging._newest) == 1  # and nothing piles up


async def test_a_job_runs_to_its_end_beside_a_redis_that_hangs(
    engine: Engine, owner: asyncpg.Connection, society: Society, hanging: ProgressBoard
) -> None:
    cycle_id = await start(engine, society)
    runner = replace(tuned(engine, batch_rows=1), progress=hanging)
    job_id: UUID = (await job_of(owner, cycle_id))["job_id"]
    await run_job(runner, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)
    assert await hanging.read(society.tenant_id, "create_contributions", cycle_id) is None


async def test_a_report_reaches_those_who_watch(engine: Engine, job: Job) -> None:
    async with engine.bell._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe("guthi:progress")
        engine.progress.report(job, 1, ShardProgress(0, 70, 5.0))

        async def told() -> bool:
            message = await pubsub.get_message(timeout=1)
            key = progress_key(job.tenant_id, job.kind, job.subject_id)
            return message is not None and message["data"].decode() == key

        await eventually(told)
    assert (await shown(engine, job)) == Progress(JobState.PROCESSING, 100, 70, 5.0)
