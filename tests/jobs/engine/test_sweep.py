"""The sweeper rings for what should run and does not, once each, and for nothing else."""

from uuid import UUID, uuid4

import asyncpg
import pytest
from arq.constants import in_progress_key_prefix

from core.settings import Settings
from db.database import Database
from jobs.engine.bell import CRON, connect_redis
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.engine.sweep import sweep
from jobs.kinds import build_engine
from tests.cycles import job_of, start, steer, tuned
from tests.support import Society


@pytest.fixture
async def job_id(engine: Engine, owner: asyncpg.Connection, society: Society) -> UUID:
    """A job whose ring was lost."""
    cycle_id = await start(engine, society)
    await silence(engine)
    job_id: UUID = (await job_of(owner, cycle_id))["job_id"]
    return job_id


async def silence(engine: Engine) -> None:
    await engine.bell._redis.delete(engine.settings.queue_name)


async def set_shard(owner: asyncpg.Connection, job_id: UUID, columns: str) -> None:
    await owner.execute(f"UPDATE batch_job_shards SET {columns} WHERE job_id = $1", job_id)


async def rings(engine: Engine) -> set[UUID]:
    return {UUID(job_id) for job_id in await engine.bell.pending()}


async def test_a_job_that_was_never_rung_for(engine: Engine, job_id: UUID) -> None:
    assert await sweep(engine) == 1
    assert await rings(engine) == {job_id}


async def test_a_ring_that_hangs_already_is_enough(engine: Engine, job_id: UUID) -> None:
    await sweep(engine)
    for _ in range(3):
        assert await sweep(engine) == 0
    assert await engine.bell.depth() == 1


async def test_a_maintenance_run_in_the_same_queue_is_no_ring(engine: Engine, job_id: UUID) -> None:
    await engine.bell._redis.enqueue_job(f"{CRON}sweep", _job_id=f"{CRON}sweep:1")
    assert await sweep(engine) == 1
    assert await rings(engine) == {job_id}


async def test_a_ring_that_a_dead_worker_took_is_not(engine: Engine, job_id: UUID) -> None:
    """arq hides it for as long as the longest timeout; we do not wait for that."""
    await sweep(engine)
    redis = engine.bell._redis
    (ring,) = await redis.zrange(engine.settings.queue_name, 0, -1)
    await redis.set(in_progress_key_prefix + ring.decode(), b"1", ex=60)
    assert await sweep(engine) == 1
    assert await engine.bell.depth() == 2


@pytest.mark.parametrize(("expires", "rung"), [("1 hour", 0), ("-1 second", 1)])
async def test_a_lease_is_left_alone_until_it_runs_out(
    engine: Engine, owner: asyncpg.Connection, job_id: UUID, expires: str, rung: int
) -> None:
    lease = f"lease_token = '{uuid4()}', lease_expires_at = now() + interval '{expires}'"
    await set_shard(owner, job_id, lease)
    assert await sweep(engine) == rung


@pytest.mark.parametrize(("due", "rung"), [("1 hour", 0), ("-1 second", 1)])
async def test_a_retry_is_rung_for_when_it_is_due(
    engine: Engine, owner: asyncpg.Connection, job_id: UUID, due: str, rung: int
) -> None:
    await set_shard(owner, job_id, f"attempts = 1, next_attempt_at = now() + interval '{due}'")
    assert await sweep(engine) == rung


async def test_a_job_with_free_shards_and_no_room_for_more_runners_is_left_alone(
    engine: Engine, owner: asyncpg.Connection, job_id: UUID
) -> None:
    await owner.execute(
        "INSERT INTO batch_job_shards (tenant_id, job_id, shard_no, lease_token, lease_expires_at)"
        " SELECT tenant_id, job_id, n, gen_random_uuid(), now() + interval '1 hour'"
        " FROM batch_jobs, generate_series(1, 2) AS n WHERE job_id = $1",
        job_id,
    )
    assert await sweep(tuned(engine, job_parallelism=2)) == 0
    assert await sweep(tuned(engine, job_parallelism=3)) == 1


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_what_an_operator_stopped_is_not_rung_for(
    engine: Engine, society: Society, job_id: UUID, verb: str
) -> None:
    await steer(engine, society, verb, job_id)
    await silence(engine)
    assert await sweep(engine) == (1 if verb == "cancel" else 0)  # a cancelled one is cleaned up after
    assert job_id not in await rings(engine)


async def test_what_has_ended_is_not_rung_for(engine: Engine, society: Society, job_id: UUID) -> None:
    await run_job(tuned(engine, faults="in_batch=error"), society.tenant_id, job_id)
    await silence(engine)
    assert await sweep(engine) == 0


async def test_it_rings_and_nothing_more(engine: Engine, owner: asyncpg.Connection, job_id: UUID) -> None:
    before = await owner.fetch("SELECT * FROM batch_jobs, batch_job_shards")
    await sweep(engine)
    assert list(map(dict, await owner.fetch("SELECT * FROM batch_jobs, batch_job_shards"))) == list(map(dict, before))


async def test_it_gives_each_job_its_priority(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    ordinary = (await job_of(owner, await start(engine, society)))["job_id"]
    urgent = (await job_of(owner, await start(engine, society, priority=600)))["job_id"]
    await silence(engine)
    assert await sweep(engine) == 2
    queue = await engine.bell._redis.zrange(engine.settings.queue_name, 0, -1)
    assert [UUID(ring.decode().split(":")[0]) for ring in queue] == [urgent, ordinary]


async def test_while_redis_is_away_it_does_no_harm(settings: Settings, job_id: UUID) -> None:
    nowhere = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    database = await Database.connect(nowhere)
    assert await sweep(build_engine(nowhere, database, connect_redis(nowhere))) == 0
    await database.close()
