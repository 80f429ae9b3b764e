"""A cycle's progress: Redis first, PostgreSQL when Redis has nothing; polled, or streamed to many."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from uuid import UUID

from arq.connections import ArqRedis

from api.answers import CreationProgress, ProgressCounts
from core.errors import NotFoundError
from core.telemetry import emit
from db.queries import sql
from jobs.create_contributions import CreateContributions
from jobs.engine.bell import REDIS_FAULTS
from jobs.engine.engine import Engine
from jobs.engine.model import Job, JobState
from jobs.engine.progress import CHANNEL, Progress, ShardProgress, progress_key

STATUS_OF_JOB = {
    JobState.QUEUED: "Initializing",
    JobState.PROCESSING: "Initializing",
    JobState.PAUSED: "Initializing",
    JobState.COMPLETED: "Active",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}
SHORTEST_GAP_SECONDS = 0.1
FALLBACK_SECONDS = 1.0


async def read_progress(engine: Engine, tenant_id: UUID, cycle_id: UUID) -> CreationProgress:
    """Raises `NotFoundError`. It never goes back: what PostgreSQL said is put up on the board as well."""
    progress = await engine.progress.read(tenant_id, CreateContributions.name, cycle_id)
    if progress is None:
        progress = await _read_rows(engine, tenant_id, cycle_id)
    return CreationProgress(
        cycle_id=cycle_id,
        status=STATUS_OF_JOB[progress.state],
        progress=ProgressCounts(
            total=progress.total or 0, processed=progress.processed, percentage=progress.percentage
        ),
        estimated_time_remaining=progress.seconds_left,
    )


async def _read_rows(engine: Engine, tenant_id: UUID, cycle_id: UUID) -> Progress:
    async with engine.database.transaction(tenant_id) as tx:
        row = await sql.find_job(tx.connection, tenant_id=tenant_id, kind=CreateContributions.name, subject_id=cycle_id)
        if row is None:
            raise NotFoundError("cycle", cycle_id)
        job = Job.from_row(row)
        shards = [s async for s in sql.list_shards(tx.connection, tenant_id=tenant_id, job_ids=[job.job_id])]
    progress = Progress.from_rows(job, shards)
    reported = [ShardProgress(s["shard_no"], s["processed"], progress.rate / len(shards)) for s in shards]
    await engine.progress.write(job, len(shards), *reported)
    return progress


class _Newest:
    """What a watcher is given next: a slow client gets the newest, not a backlog."""

    def __init__(self) -> None:
        self._value: CreationProgress | None = None
        self._arrived = asyncio.Event()

    def put(self, value: CreationProgress) -> None:
        self._value = value
        self._arrived.set()

    async def get(self) -> CreationProgress:
        """Waits for one that was not taken yet."""
        await self._arrived.wait()
        self._arrived.clear()
        assert self._value is not None
        return self._value


class ProgressFeed:
    """One subscription to Redis for all watchers of this process, and one read a change for each cycle.

    Without Redis the watched cycles are read from PostgreSQL, once a second.
    """

    def __init__(self, engine: Engine, redis: ArqRedis) -> None:
        self._engine = engine
        self._redis = redis
        self._watchers: defaultdict[tuple[UUID, UUID], set[_Newest]] = defaultdict(set)
        self._readers: dict[tuple[UUID, UUID], asyncio.Task[None]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._listener: asyncio.Task[None] | None = None

    async def watch(self, tenant_id: UUID, cycle_id: UUID, first: CreationProgress) -> AsyncIterator[CreationProgress]:
        """`first`, then each change, until the cycle is no longer `Initializing`."""
        yield first
        if first.status != "Initializing":
            return
        watched = (tenant_id, cycle_id)
        newest = _Newest()
        self._watchers[watched].add(newest)
        self._ensure_reader(watched)
        shown = first
        try:
            while shown.status == "Initializing":
                await asyncio.sleep(SHORTEST_GAP_SECONDS)
                progress = await newest.get()
                if progress != shown:
                    yield progress
                shown = progress
        finally:
            self._watchers[watched].discard(newest)

    async def close(self) -> None:
        tasks = [*self._readers.values(), *([self._listener] if self._listener else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ensure_reader(self, watched: tuple[UUID, UUID]) -> None:
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        if watched not in self._readers:
            self._readers[watched] = asyncio.create_task(self._read_while_watched(watched))

    async def _read_while_watched(self, watched: tuple[UUID, UUID]) -> None:
        key = progress_key(watched[0], CreateContributions.name, watched[1])
        changed = self._changed[key] = asyncio.Event()
        try:
            while self._watchers[watched]:
                try:
                    progress = await read_progress(self._engine, *watched)
                except Exception as error:  # PostgreSQL and Redis both away: the watchers wait for either
                    emit("loop_failed", loop="progress_feed", error=repr(error))
                else:
                    for newest in self._watchers[watched]:
                        newest.put(progress)
                await asyncio.sleep(SHORTEST_GAP_SECONDS)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), FALLBACK_SECONDS - SHORTEST_GAP_SECONDS)
                changed.clear()
        finally:
            del self._changed[key], self._readers[watched], self._watchers[watched]

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    while True:
                        message = await pubsub.get_message(timeout=FALLBACK_SECONDS)
                        if message and (changed := self._changed.get(message["data"].decode())):
                            changed.set()
            except REDIS_FAULTS as error:
                emit("redis_away", doing="listen", error=repr(error))
                await asyncio.sleep(FALLBACK_SECONDS)
