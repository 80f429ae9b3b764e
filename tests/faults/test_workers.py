"""Workers that are killed, frozen or asked to stop in the middle of a job."""

import signal
from collections.abc import Callable

import asyncpg
import pytest

from jobs.engine.engine import Engine
from tests.cycles import (
    SMALL_STEPS,
    becomes,
    count_rows,
    frozen,
    job_of,
    log_of,
    rows_reach,
    says,
    shards_of,
    start,
    steer,
    thaw,
)
from tests.support import Worker, assert_whole, eventually, make_society

StartWorker = Callable[..., Worker]
ONE_SHARD = SMALL_STEPS | {"GUTHI_SHARD_ROWS": 100_000}
POINTS = (
    "after_lease",
    "after_plan",
    "in_batch",
    "before_advance",
    "before_commit",
    "after_commit",
    "before_complete",
    "after_end",
)


async def test_two_workers_killed_in_the_middle_cost_nothing(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=6_000)
    cycle_id = await start(engine, society)
    for fault in ("after_commit=kill@5", "before_commit=kill@5"):
        worker = start_worker(**SMALL_STEPS, GUTHI_FAULTS=fault)
        assert await worker.ended() == -signal.SIGKILL
    assert 0 < await count_rows(owner, cycle_id) < 6_000
    start_worker(**SMALL_STEPS)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    assert len(await log_of(owner, cycle_id, "lease_expired")) >= 2


async def test_a_kill_at_any_point_is_made_good_by_the_next_worker(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=4_000)
    cycle_id = await start(engine, society)
    patient = SMALL_STEPS | {"GUTHI_MAX_ATTEMPTS": 100, "GUTHI_LEASE_SECONDS": 0.5, "GUTHI_SHARD_ROWS": 500}
    for point in POINTS:
        worker = start_worker(**patient, GUTHI_FAULTS=f"{point}=kill")
        assert await worker.ended() == -signal.SIGKILL, point
    start_worker(**patient)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)


async def test_a_kill_at_any_call_can_be_asked_for_by_its_name(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    """`scripts/prove` goes through all of them; here a worker as users start it is armed for a few."""
    society = await make_society(owner, members=1_000)
    cycle_id = await start(engine, society)
    for point, made in (("sql:advance_shard=kill@2", 200), ("after_sql:advance_shard=kill@2", 400)):
        assert await start_worker(**ONE_SHARD, GUTHI_FAULTS=point).ended() == -signal.SIGKILL
        assert await count_rows(owner, cycle_id) == made
    start_worker(**ONE_SHARD)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)


@pytest.mark.parametrize("point", ["after_commit", "before_commit"])
async def test_a_worker_frozen_beyond_its_lease_writes_nothing_more_when_it_wakes(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None, point: str
) -> None:
    society = await make_society(owner, members=4_000)
    cycle_id = await start(engine, society)
    short_lease = SMALL_STEPS | {"GUTHI_LEASE_SECONDS": 0.5}
    sleeper = start_worker(**short_lease, GUTHI_FAULTS=f"{point}=freeze@3")
    await frozen(sleeper)
    other = start_worker(**short_lease)
    await becomes(owner, cycle_id, "Active")
    made = await owner.fetch("SELECT member_id, xmin::text FROM contributions WHERE cycle_id = $1", cycle_id)
    thaw(sleeper)
    await says(sleeper, "lease_lost", "attempt_failed")
    other.kill()
    second = await start(engine, society)
    await becomes(owner, second, "Active")  # the sleeper is as good as new
    await assert_whole(owner, society, second)
    await assert_whole(owner, society, cycle_id)
    still = await owner.fetch("SELECT member_id, xmin::text FROM contributions WHERE cycle_id = $1", cycle_id)
    assert sorted(map(tuple, still)) == sorted(map(tuple, made))
    assert not await log_of(owner, cycle_id, "job_failed")


async def test_sigterm_ends_after_the_batch_in_hand_and_leaves_the_rest_to_be_taken_at_once(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=5_000)
    cycle_id = await start(engine, society)
    long_lease = ONE_SHARD | {"GUTHI_LEASE_SECONDS": 300, "GUTHI_SWEEP_SECONDS": 30}
    worker = start_worker(**long_lease, GUTHI_FAULTS="after_commit=terminate@3")
    assert await worker.ended() == 0
    (shard,) = await shards_of(owner, cycle_id)
    assert shard["processed"] in (600, 800)  # the third batch, and the one it may have begun by then
    assert shard["lease_token"] is None
    job = await job_of(owner, cycle_id)
    assert await engine.bell.pending() == {str(job["job_id"])}  # neither lease nor sweep need be waited for
    start_worker(**long_lease)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    assert not await log_of(owner, cycle_id, "lease_expired")


async def test_sigterm_does_not_wait_for_ever_for_a_batch_that_hangs(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker
) -> None:
    society = await make_society(owner, members=2_000)
    cycle_id = await start(engine, society)
    async with owner.transaction():
        await owner.execute("LOCK TABLE contributions IN SHARE MODE")
        worker = start_worker(**ONE_SHARD, GUTHI_STOP_SECONDS=1)
        await eventually(
            lambda: owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
        )
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        assert await count_rows(owner, cycle_id) == 0
    start_worker(**ONE_SHARD)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)


async def test_a_batch_that_kills_its_worker_fails_the_job_and_not_the_fleet(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=3_000)
    cycle_id = await start(engine, society)
    assert await start_worker(**ONE_SHARD, GUTHI_FAULTS="after_commit=kill@3").ended() == -signal.SIGKILL
    deaths = 1
    worker = start_worker(**ONE_SHARD, GUTHI_FAULTS="in_batch=kill")
    while (await job_of(owner, cycle_id))["state"] != "Failed":
        if worker.process.poll() is not None:  # what a supervisor does
            deaths += 1
            worker = start_worker(**ONE_SHARD, GUTHI_FAULTS="in_batch=kill")
        await rows_reach(owner, cycle_id, 599)
    job, (shard,) = await job_of(owner, cycle_id), await shards_of(owner, cycle_id)
    assert deaths == 3
    assert job["error"] == f"worker died 3 times at cursor {shard['cursor']}"
    assert (await count_rows(owner, cycle_id), shard["processed"]) == (600, 600)
    assert worker.process.poll() is None
    worker.kill()

    await steer(engine, society, "retry", job["job_id"])
    start_worker(**ONE_SHARD)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
