"""PostgreSQL crashes, or cuts its sessions: what was committed stands, the rest is made again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from core.settings import Settings
from jobs.engine.engine import Engine
from jobs.engine.model import Job
from jobs.engine.progress import ShardProgress
from tests.conftest import Servers
from tests.cycles import (
    SMALL_STEPS,
    becomes,
    count_rows,
    frozen,
    job_of,
    rows_reach,
    slow_batches,
    start,
    steer,
    thaw,
    watched,
)
from tests.support import Worker, assert_whole, make_society

StartWorker = Callable[..., Worker]


class Reconnecting:
    """The owner's connection, opened anew when PostgreSQL has cut it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None

    async def get(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url)
        return self._connection

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any) -> Any:
            return await getattr(await self.get(), name)(*arguments)

        return call


@pytest.fixture
def servers(breakable_servers: Servers) -> Servers:
    return breakable_servers


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Any]:
    connection = Reconnecting(settings.admin_database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("point", ["after_commit", "before_commit"])
async def test_postgres_crashes_in_the_middle_and_comes_back(
    engine: Engine, owner: Any, start_worker: StartWorker, servers: Servers, settings: Settings, point: str
) -> None:
    society = await make_society(await owner.get(), members=5_000)
    cycle_id = await start(engine, society)
    worker = start_worker(**SMALL_STEPS, GUTHI_FAULTS=f"{point}=freeze@5")
    await frozen(worker)
    servers.postgres.stop(mode="immediate")
    thaw(worker)
    servers.postgres.start()
    async with watched(settings):  # not the scoreboard: it may remember what the crash undid
        await becomes(owner, cycle_id, "Active")
    await assert_whole(await owner.get(), society, cycle_id)
    assert worker.process.poll() is None


async def test_postgres_away_for_longer_than_any_lease(
    engine: Engine, owner: Any, start_worker: StartWorker, servers: Servers
) -> None:
    society = await make_society(await owner.get(), members=5_000)
    cycle_id = await start(engine, society)
    worker = start_worker(**SMALL_STEPS, GUTHI_FAULTS="after_commit=freeze@5")
    await frozen(worker)
    servers.postgres.stop(mode="immediate")
    thaw(worker)
    seen = worker.log.read_text().count("maintenance_failed")
    while worker.log.read_text().count("maintenance_failed") < seen + 3:  # three sweeps in vain
        assert worker.process.poll() is None
        await asyncio.sleep(0.01)
    servers.postgres.start()
    await becomes(owner, cycle_id, "Active")
    await assert_whole(await owner.get(), society, cycle_id)


async def test_sessions_cut_again_and_again(
    engine: Engine, owner: Any, start_worker: StartWorker, servers: Servers, settings: Settings
) -> None:
    society = await make_society(await owner.get(), members=8_000)
    await slow_batches(await owner.get(), 0.03)
    worker = start_worker(**SMALL_STEPS)
    cutter = await asyncpg.connect(servers.postgres.superuser_url)
    async with watched(settings, engine.progress):
        cycle_id = await start(engine, society)
        for _ in range(6):
            # Each cut comes after some progress: without any, three would rightly end the job.
            await rows_reach(owner, cycle_id, await count_rows(owner, cycle_id) + 600)
            await cutter.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guthi_app'")
        await becomes(owner, cycle_id, "Active")
    await cutter.close()
    await assert_whole(await owner.get(), society, cycle_id)
    assert worker.process.poll() is None


async def test_what_a_crash_undid_is_not_shown_once_the_job_has_ended(engine: Engine, owner: Any) -> None:
    """The scoreboard heard of batches that PostgreSQL lost in a crash, as it may: they commit without waiting."""
    society = await make_society(await owner.get(), members=1_000)
    cycle_id = await start(engine, society)
    job = Job.from_row(await job_of(owner, cycle_id))
    await engine.progress.write(job, 1, ShardProgress(0, 800))
    await steer(engine, society, "pause", job.job_id)
    shown = await engine.progress.read(society.tenant_id, job.kind, cycle_id)
    assert shown is not None
    assert shown.processed == 0
