"""The bell wakes an idle worker; a fault of Redis neither ends the main loop nor eats its slots."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

import worker.bell_worker
import worker.main
from core.tasks import end_task
from jobs.engine.engine import Engine
from tests.support import eventually
from worker.bell_worker import BellWorker
from worker.main import worker_settings
from worker.presence import Presence


@pytest.fixture
async def ran(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Ids of the batch jobs that the worker was told to run."""
    ids: list[UUID] = []

    async def note(_: Engine, tenant_id: UUID, job_id: UUID) -> None:
        ids.append(job_id)

    monkeypatch.setattr(worker.main, "run_job", note)
    return ids


@pytest.fixture
async def running(engine: Engine) -> AsyncIterator[BellWorker]:
    """A worker's main loop in this process."""
    running = BellWorker(**worker_settings(engine, engine.bell._redis, Presence(engine)), handle_signals=False)
    loop = asyncio.create_task(running.async_run())
    yield running
    assert not loop.done(), "the main loop ended"
    await end_task(running.main_task)
    await asyncio.wait([loop])
    await asyncio.gather(*running.tasks.values(), return_exceptions=True)
    await end_task(running._listener)


class Faulty:
    """Stands before a client of Redis and lets named commands fail as often as told."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.failures: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise RedisConnectionError(f"planted in {name}")
        return getattr(self.client, name)


async def test_the_bell_wakes_an_idle_worker_that_would_not_poll_for_an_hour(
    engine: Engine, ran: list[UUID], monkeypatch: pytest.MonkeyPatch, running: BellWorker
) -> None:
    monkeypatch.setattr(worker.bell_worker, "POLL_SECONDS", 3_600)
    first = uuid4()
    await engine.bell.ring(first, uuid4())  # may still be found by the poll that had begun

    async def heard() -> list[UUID]:
        return ran

    await eventually(heard, lambda ids: first in ids)
    for _ in range(5):
        job_id = uuid4()
        await engine.bell.ring(job_id, uuid4())
        await eventually(heard, lambda ids, job_id=job_id: job_id in ids, seconds=30)


async def test_without_the_bell_the_poll_finds_it(engine: Engine, ran: list[UUID], running: BellWorker) -> None:
    job_id = uuid4()
    redis = engine.bell._redis
    await redis.enqueue_job("run_job", str(uuid4()), str(job_id), _job_id=f"{job_id}:x")  # nothing is published

    async def found() -> bool:
        return job_id in ran

    await eventually(found)


async def test_a_slot_that_comes_free_is_filled_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, running: BellWorker
) -> None:
    monkeypatch.setattr(worker.bell_worker, "POLL_SECONDS", 3_600)
    busy, most, done = 0, 0, 0

    async def work(*_: object) -> None:
        nonlocal busy, most, done
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.01)
        busy -= 1
        done += 1

    monkeypatch.setattr(worker.main, "run_job", work)
    for _ in range(23):
        await engine.bell.ring(uuid4(), uuid4())

    async def all_done() -> bool:
        return done == 23

    await eventually(all_done)
    assert most <= engine.settings.worker_concurrency


async def test_faults_in_start_jobs_eat_no_slots(
    engine: Engine, ran: list[UUID], monkeypatch: pytest.MonkeyPatch, running: BellWorker
) -> None:
    monkeypatch.setattr(worker.bell_worker, "POLL_SECONDS", 0.02)
    faulty = Faulty(running.pool)
    running._pool = faulty
    faulty.failures["pipeline"] = 4 * engine.settings.worker_concurrency  # after the slot was taken
    job_ids = [uuid4() for _ in range(12)]
    for job_id in job_ids:
        await engine.bell.ring(job_id, uuid4())

    async def all_ran() -> bool:
        return set(job_ids) <= set(ran)

    await eventually(all_ran)

    async def slots_free() -> bool:
        return running.job_counter == 0 and running.sem._value == running.max_jobs + 1

    await eventually(slots_free)
    assert running._slots_taken == 0


async def test_slots_of_runs_in_progress_stay_taken_through_a_fault(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, running: BellWorker
) -> None:
    monkeypatch.setattr(worker.bell_worker, "POLL_SECONDS", 0.02)
    go, busy, most = asyncio.Event(), 0, 0

    async def work(*_: object) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await go.wait()
        busy -= 1

    monkeypatch.setattr(worker.main, "run_job", work)
    faulty = Faulty(running.pool)
    running._pool = faulty

    async def busy_with(runs: int) -> bool:
        return busy == runs

    for _ in range(3):
        await engine.bell.ring(uuid4(), uuid4())
    await eventually(lambda: busy_with(3))
    faulty.failures |= {"zrangebyscore": 3}

    async def failed() -> bool:
        return faulty.failures["zrangebyscore"] == 0

    await eventually(failed)
    for _ in range(9):
        await engine.bell.ring(uuid4(), uuid4())
    await eventually(lambda: busy_with(engine.settings.worker_concurrency))
    go.set()

    async def empty() -> bool:
        return await engine.bell.depth() == 0 and busy == 0

    await eventually(empty)
    assert most == engine.settings.worker_concurrency


async def test_the_main_loop_outlives_redis_faults_of_every_sort(
    engine: Engine, ran: list[UUID], monkeypatch: pytest.MonkeyPatch, running: BellWorker
) -> None:
    monkeypatch.setattr(worker.bell_worker, "POLL_SECONDS", 0.02)
    faulty = Faulty(running.pool)
    running._pool = faulty
    faulty.failures |= {"zrangebyscore": 3, "pipeline": 3, "enqueue_job": 3, "psetex": 2, "zcard": 2}

    async def all_tripped() -> bool:
        await engine.bell.ring(uuid4(), uuid4())
        return faulty.failures["zrangebyscore"] == faulty.failures["pipeline"] == 0

    await eventually(all_tripped)
    job_id = uuid4()
    await engine.bell.ring(job_id, uuid4())

    async def found() -> bool:
        return job_id in ran

    await eventually(found)


@pytest.mark.parametrize("ticks", range(8))
async def test_the_cancel_that_ends_the_main_loop_is_not_lost_in_a_wake(engine: Engine, ticks: int) -> None:
    """arq cancels once, after a signal: were that swallowed just as the bell rings, the worker would never end."""
    stopping = BellWorker(**worker_settings(engine, engine.bell._redis, Presence(engine)), handle_signals=False)
    loop = asyncio.create_task(stopping.async_run())

    async def listens() -> bool:
        return stopping._listener is not None

    await eventually(listens)
    await asyncio.sleep(0.05)  # in the middle of waiting for the bell
    stopping.handle_sig_wait_for_completion(signal.SIGTERM)
    for _ in range(ticks):
        await asyncio.sleep(0)
    stopping._wake.set()
    await asyncio.wait([loop], timeout=20)
    assert loop.done()
    await end_task(stopping._listener)
    await asyncio.gather(*stopping.tasks.values(), return_exceptions=True)
