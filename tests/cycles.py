"""Cycles and their jobs, as the tests of the engine, of the worker and of the faults start and watch them."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import psutil

from core.faults import Faults
from core.settings import Settings
from domain.cycles import NewCycle
from jobs.create_contributions import Strategy, start_cycle
from jobs.engine import transitions
from jobs.engine.engine import Engine
from jobs.engine.model import Job
from jobs.engine.progress import ProgressBoard
from jobs.invariants import Broken, broken_invariants
from tests.support import Society, Worker, cycle_status, eventually

SMALL_STEPS = {
    "GUTHI_BATCH_ROWS": 200,
    "GUTHI_SHARD_ROWS": 1_000,
    "GUTHI_LEASE_SECONDS": 1,
    "GUTHI_SWEEP_SECONDS": 1,
    "GUTHI_BACKOFF_SECONDS": 0.1,
}
"""For workers: many batches, several shards, quick recovery, so that a test lands in the middle and soon ends."""


def tuned(engine: Engine, *, faults: str = "", **settings: object) -> Engine:
    """The same engine with some settings and fault points changed, and a `stopping` of its own."""
    changed: Settings = engine.settings.model_copy(update=settings)
    return replace(engine, settings=changed, faults=Faults(faults), stopping=asyncio.Event())


async def start(engine: Engine, society: Society, strategy: Strategy = "queued", priority: int = 0) -> UUID:
    """The id of a new cycle."""
    async with engine.database.transaction(society.tenant_id) as tx:
        new = NewCycle(society.tier_id, society.dead)
        cycle, _ = await start_cycle(engine, tx, new, society.user_id, strategy=strategy, priority=priority)
    cycle_id: UUID = cycle["cycle_id"]
    return cycle_id


async def job_of(owner: asyncpg.Connection, cycle_id: UUID, kind: str = "create_contributions") -> asyncpg.Record:
    return await owner.fetchrow("SELECT * FROM batch_jobs WHERE subject_id = $1 AND kind = $2", cycle_id, kind)


async def shards_of(owner: asyncpg.Connection, cycle_id: UUID) -> list[asyncpg.Record]:
    job = await job_of(owner, cycle_id)
    rows: list[asyncpg.Record] = await owner.fetch(
        "SELECT * FROM batch_job_shards WHERE job_id = $1 ORDER BY shard_no", job["job_id"]
    )
    return rows


async def log_of(owner: asyncpg.Connection, cycle_id: UUID, event: str) -> list[asyncpg.Record]:
    job = await job_of(owner, cycle_id)
    entries: list[asyncpg.Record] = await owner.fetch(
        "SELECT * FROM batch_job_log WHERE job_id = $1 AND event = $2 ORDER BY entry_no", job["job_id"], event
    )
    return entries


async def count_rows(owner: asyncpg.Connection, cycle_id: UUID) -> int:
    count: int = await owner.fetchval("SELECT count(*) FROM contributions WHERE cycle_id = $1", cycle_id)
    return count


async def becomes(owner: asyncpg.Connection, cycle_id: UUID, status: str, seconds: float = 60) -> None:
    await eventually(lambda: cycle_status(owner, cycle_id), lambda now: now == status, seconds)


async def rows_reach(owner: asyncpg.Connection, cycle_id: UUID, rows: int) -> int:
    """Waits until more than `rows` contributions stand."""
    reached: int = await eventually(lambda: count_rows(owner, cycle_id), lambda now: now > rows)
    return reached


async def steer(engine: Engine, society: Society, verb: str, job_id: UUID) -> Job:
    """`pause`, `resume`, `cancel` or `retry`, as the API does it."""
    async with engine.database.transaction(society.tenant_id) as tx:
        job: Job = await getattr(transitions, f"{verb}_job")(engine, tx, job_id)
    return job


async def slow_batches(owner: asyncpg.Connection, seconds: float) -> None:
    """From now on each statement that makes or removes contributions takes that long: room to land in the middle."""
    await owner.execute(
        f"""
        CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
        CREATE OR REPLACE TRIGGER dawdle BEFORE INSERT OR DELETE ON contributions
        FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
        """
    )


async def frozen(worker: Worker) -> None:
    """Waits until the worker's fault point has stopped it."""

    async def stopped() -> bool:
        return psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED

    await eventually(stopped)


def thaw(worker: Worker) -> None:
    worker.send(signal.SIGCONT)


async def says(worker: Worker, *events: str) -> None:
    """Waits until the worker's log holds one of `events`."""

    async def said() -> bool:
        log = worker.log.read_text()
        return any(f'"{event}"' in log for event in events)

    await eventually(said)


@contextlib.asynccontextmanager
async def watched(settings: Settings, board: ProgressBoard | None = None) -> AsyncIterator[None]:
    """Asks for every invariant again and again while the block runs, each in one snapshot. None may break."""
    found: list[Broken] = []
    samples = 0

    async def sample(connection: asyncpg.Connection) -> None:
        nonlocal samples
        while not found:
            found.extend(await broken_invariants(connection, board))
            samples += 1
            await asyncio.sleep(0.02)

    connection: Any = await asyncpg.connect(settings.admin_database_url)
    sampler = asyncio.create_task(sample(connection))
    try:
        yield
        wanted = samples + 1
        while not sampler.done() and samples < wanted:
            await asyncio.sleep(0.01)
    finally:
        sampler.cancel()
        await asyncio.wait([sampler])
        connection.terminate()
    if not sampler.cancelled():
        sampler.result()
    assert found == [], f"broken while jobs ran, in sample {samples}: {found[:3]}"
