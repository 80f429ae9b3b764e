"""Redis flushed, stopped, frozen: it is the doorbell and the scoreboard, so that costs seconds and never data."""

import os
import signal
from collections.abc import Callable

import asyncpg
import pytest

from jobs.engine.engine import Engine
from tests.conftest import Servers
from tests.cycles import SMALL_STEPS, becomes, count_rows, frozen, says, start, thaw
from tests.support import Worker, assert_whole, eventually, make_society

StartWorker = Callable[..., Worker]


@pytest.fixture
def servers(breakable_servers: Servers) -> Servers:
    return breakable_servers


async def frozen_in_the_middle(start_worker: StartWorker) -> Worker:
    """A worker that has stopped between two batches, for the test to go on when it likes."""
    worker = start_worker(**SMALL_STEPS | {"GUTHI_LEASE_SECONDS": 30}, GUTHI_FAULTS="after_commit=freeze@5")
    await frozen(worker)
    return worker


async def test_flushall_in_the_middle(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=5_000)
    cycle_id = await start(engine, society)
    worker = await frozen_in_the_middle(start_worker)
    assert 0 < await count_rows(owner, cycle_id) < 5_000
    await engine.bell._redis.flushall()
    assert await engine.progress.read(society.tenant_id, "create_contributions", cycle_id) is None
    thaw(worker)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    shown = await engine.progress.read(society.tenant_id, "create_contributions", cycle_id)
    assert shown is None or shown.processed == 5_000


async def test_flushall_between_the_start_and_the_ring_is_made_good_by_the_sweeper(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker
) -> None:
    society = await make_society(owner, members=2_000)
    cycle_id = await start(engine, society)
    await engine.bell._redis.flushall()
    start_worker(**SMALL_STEPS)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)


async def test_redis_stopped_at_the_start_of_a_cycle_and_started_again(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, servers: Servers, sampler: None
) -> None:
    society = await make_society(owner, members=3_000)
    worker = start_worker(**SMALL_STEPS)
    await says(worker, "worker_started")
    servers.valkey.kill()
    cycle_id = await start(engine, society)  # answers all the same
    await says(worker, "redis_away")
    servers.valkey.start()
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    assert worker.process.poll() is None


async def test_redis_stopped_in_the_middle_and_started_again(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, servers: Servers, sampler: None
) -> None:
    society = await make_society(owner, members=5_000)
    cycle_id = await start(engine, society)
    worker = await frozen_in_the_middle(start_worker)
    servers.valkey.kill()
    thaw(worker)
    await becomes(owner, cycle_id, "Active")  # what runs goes on by itself
    servers.valkey.start()
    second = await start(engine, society)
    await becomes(owner, second, "Active")
    await assert_whole(owner, society, cycle_id)
    await assert_whole(owner, society, second)
    assert worker.process.poll() is None


async def test_redis_frozen_for_a_while_holds_up_no_batch(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, servers: Servers
) -> None:
    society = await make_society(owner, members=5_000)
    cycle_id = await start(engine, society)
    worker = await frozen_in_the_middle(start_worker)
    assert servers.valkey.pid is not None
    os.kill(servers.valkey.pid, signal.SIGSTOP)
    try:
        thaw(worker)
        await becomes(owner, cycle_id, "Active")
        second = await start(engine, society)
    finally:
        os.kill(servers.valkey.pid, signal.SIGCONT)
    await becomes(owner, second, "Active")
    await assert_whole(owner, society, cycle_id)
    await assert_whole(owner, society, second)
    assert worker.process.poll() is None


async def test_sigterm_ends_a_worker_that_has_never_seen_redis(start_worker: StartWorker, servers: Servers) -> None:
    servers.valkey.kill()
    worker = start_worker(**SMALL_STEPS)
    await says(worker, "redis_away")
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0


@pytest.mark.parametrize("fault", ["frozen", "stopped"])
async def test_sigterm_ends_a_worker_also_while_redis_is_away(
    owner: asyncpg.Connection, start_worker: StartWorker, servers: Servers, fault: str
) -> None:
    worker = start_worker(**SMALL_STEPS)
    await eventually(lambda: owner.fetchval("SELECT count(*) FROM maintenance_runs"))  # the main loop runs
    assert servers.valkey.pid is not None
    if fault == "stopped":
        servers.valkey.kill()
    else:
        os.kill(servers.valkey.pid, signal.SIGSTOP)
    try:
        worker.send(signal.SIGTERM)
        assert await worker.ended(seconds=40) == 0
    finally:
        if fault == "frozen":
            os.kill(servers.valkey.pid, signal.SIGCONT)


async def test_a_worker_started_before_redis_waits_for_it(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, servers: Servers
) -> None:
    society = await make_society(owner, members=1_000)
    servers.valkey.kill()
    cycle_id = await start(engine, society)
    worker = start_worker(**SMALL_STEPS)

    async def tried() -> bool:
        return "redis" in worker.log.read_text().lower()

    await eventually(tried)
    servers.valkey.start()
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
