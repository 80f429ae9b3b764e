"""What arq is told, and that it took effect: each setting is there for a trap of arq's."""

from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any
from uuid import uuid4

import orjson
import pytest
from arq.constants import in_progress_key_prefix, job_key_prefix, result_key_prefix, retry_key_prefix
from arq.worker import Worker

from core.settings import Settings
from jobs.engine.bell import RING_FUNCTION
from jobs.engine.engine import Engine
from worker.bell_worker import BellWorker
from worker.main import READ_LIMIT, SLICE_MARGIN_SECONDS, worker_settings
from worker.presence import Presence


@pytest.fixture
async def worker(engine: Engine) -> AsyncIterator[BellWorker]:
    """In this process, without signals, nor a clock that adds to the queue; a test runs its polls by hand."""
    told = worker_settings(engine, engine.bell._redis, Presence(engine)) | {"cron_jobs": []}
    worker = BellWorker(**told, handle_signals=False)
    yield worker
    for task in worker.tasks.values():
        task.cancel()


async def drain(worker: BellWorker) -> None:
    """Everything in the queue, to its end."""
    await Worker._poll_iteration(worker)
    while worker.tasks:
        for task in list(worker.tasks.values()):
            await task
        await Worker._poll_iteration(worker)


def test_every_setting_reaches_the_worker(worker: BellWorker, settings: Settings) -> None:
    assert worker.keep_result_s == 0
    assert not worker.keep_result_forever
    assert worker.max_tries == 1_000_000
    assert worker.job_timeout_s == settings.slice_seconds + SLICE_MARGIN_SECONDS
    assert worker.max_jobs == settings.worker_concurrency == 5
    assert worker.queue_name == settings.queue_name
    assert worker.queue_read_limit == READ_LIMIT
    assert worker._job_completion_wait == settings.stop_seconds
    assert worker.timezone is UTC
    assert worker.poll_delay_s == 0  # it waits for the bell instead
    assert not worker.allow_abort_jobs
    assert (worker.on_job_start, worker.on_job_end, worker.after_job_end) == (None, None, None)


def test_the_queue_is_read_further_than_a_fleet_can_be_busy(settings: Settings) -> None:
    """Running jobs stay in the queue: a fleet of a hundred workers must not hide what waits behind them."""
    assert 100 * settings.worker_concurrency <= READ_LIMIT


def test_a_slice_fits_into_the_timeout(worker: BellWorker, settings: Settings) -> None:
    assert worker.functions[RING_FUNCTION].timeout_s is None  # so the worker's own counts
    assert worker.job_timeout_s > settings.slice_seconds + 2 * settings.lease_seconds


async def test_a_setting_that_arq_does_not_know_is_refused(engine: Engine) -> None:
    with pytest.raises(TypeError):
        BellWorker(**worker_settings(engine, engine.bell._redis, Presence(engine)), keep_results=0)


async def test_no_result_is_kept_and_nothing_else_either(engine: Engine, worker: BellWorker) -> None:
    job_id = uuid4()
    await engine.bell.ring(job_id, uuid4())
    await drain(worker)
    assert worker.jobs_complete == 1
    redis = engine.bell._redis
    for prefix in (result_key_prefix, job_key_prefix, in_progress_key_prefix, retry_key_prefix):
        assert [key async for key in redis.scan_iter(f"{prefix}{job_id}*")] == []
    assert await engine.bell.pending() == set()


async def test_a_job_can_be_rung_again_while_it_runs_and_after(engine: Engine) -> None:
    job_id, tenant_id = uuid4(), uuid4()
    for _ in range(3):
        assert await engine.bell.ring(job_id, tenant_id)
    assert await engine.bell.depth() == 3  # arq refuses an id that it knows, so each is fresh
    assert await engine.bell.pending() == {str(job_id)}


async def test_what_lies_in_redis_is_json(engine: Engine) -> None:
    """A pickle would run code in a worker, and its reader needs our classes."""
    job_id, tenant_id = uuid4(), uuid4()
    await engine.bell.ring(job_id, tenant_id)
    redis = engine.bell._redis
    (ring,) = await redis.zrange(engine.settings.queue_name, 0, -1)
    stored: Any = orjson.loads(await redis.get(job_key_prefix + ring.decode()))
    assert stored["f"] == RING_FUNCTION
    assert stored["a"] == [str(tenant_id), str(job_id)]


async def test_a_plain_exception_in_a_run_ends_that_run_only(
    engine: Engine, worker: BellWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("worker.main.run_job", broken)
    await engine.bell.ring(uuid4(), uuid4())
    await drain(worker)
    assert worker.jobs_failed == 1
    monkeypatch.undo()
    await engine.bell.ring(uuid4(), uuid4())
    await drain(worker)
    assert worker.jobs_complete == 1
    assert await engine.bell.pending() == set()


async def test_priority_is_a_head_start_in_the_queue(engine: Engine) -> None:
    ordinary, urgent, later = uuid4(), uuid4(), uuid4()
    await engine.bell.ring(ordinary, uuid4())
    await engine.bell.ring(urgent, uuid4(), priority=60)
    await engine.bell.ring(later, uuid4())
    rings = await engine.bell._redis.zrange(engine.settings.queue_name, 0, -1, withscores=True)
    scores = {ring.decode().split(":")[0]: score for ring, score in rings}
    assert next(iter(scores)) == str(urgent)
    assert 50_000 < scores[str(ordinary)] - scores[str(urgent)] <= 60_000  # milliseconds
