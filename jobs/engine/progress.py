"""The scoreboard: a job's progress in Redis, written after each commit and never waited for.

One hash a job holds its state and, for each shard, the rows and the rate. A script takes only what is
newer, so that a late write of a runner that lost its lease cannot turn it back. While a job can still change
the hash lives a few seconds only: what is stale disappears by itself, and readers fall back to PostgreSQL.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any, Self, cast
from uuid import UUID

from arq.connections import ArqRedis

from core.settings import Settings
from core.tasks import end_task
from core.telemetry import emit
from jobs.engine.bell import REDIS_FAULTS
from jobs.engine.model import TERMINAL, Job, JobState

CHANNEL = "guthi:progress"
MOVING_TTL_SECONDS = 3

_TAKE_IF_NEWER = """
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if tonumber(ARGV[1]) > version and #ARGV >= 6 + 3 * tonumber(ARGV[4]) then
    redis.call('DEL', KEYS[1]) -- every shard anew: what a crash of PostgreSQL undid is forgotten here too
end
if tonumber(ARGV[1]) >= version then
    redis.call('HSET', KEYS[1], 'version', ARGV[1], 'state', ARGV[2], 'total', ARGV[3], 'shards', ARGV[4])
    redis.call('EXPIRE', KEYS[1], ARGV[5])
end
for i = 7, #ARGV, 3 do
    local rows = 's' .. ARGV[i]
    if tonumber(ARGV[i + 1]) >= tonumber(redis.call('HGET', KEYS[1], rows) or '0') then
        redis.call('HSET', KEYS[1], rows, ARGV[i + 1], 'r' .. ARGV[i], ARGV[i + 2])
    end
end
redis.call('PUBLISH', ARGV[6], KEYS[1])
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `rate` in keys a second over the last batches, 0 when nothing moves."""

    state: JobState
    total: int | None
    processed: int
    rate: float

    @property
    def percentage(self) -> int:
        """0 to 100, and 100 only when all is done."""
        if self.state is JobState.COMPLETED:
            return 100
        return min(99, self.processed * 100 // self.total) if self.total else 0

    @property
    def seconds_left(self) -> int | None:
        """None while unknown, 0 when nothing more will come."""
        if self.state in TERMINAL:
            return 0
        if not self.total or self.rate <= 0:
            return None
        return ceil((self.total - self.processed) / self.rate)

    @classmethod
    def from_hash(cls, stored: Mapping[bytes, bytes]) -> Self | None:
        """None when the hash does not speak of every shard, as after a flush in the middle."""
        if b"shards" not in stored:
            return None
        shards = range(int(stored[b"shards"]))
        try:
            processed = sum(int(stored[b"s%d" % n]) for n in shards)
            rate = sum(float(stored[b"r%d" % n]) for n in shards)
        except KeyError:
            return None
        total = int(stored[b"total"])
        return cls(JobState(stored[b"state"].decode()), total if total >= 0 else None, processed, rate)

    @classmethod
    def from_rows(cls, job: Job, shards: Sequence[Mapping[str, Any]]) -> Self:
        """What PostgreSQL knows; the rate is the average since the start."""
        processed, rate = sum(shard["processed"] for shard in shards), 0.0
        if job.state is JobState.PROCESSING and job.started_at is not None:
            rate = processed / max((datetime.now(UTC) - job.started_at).total_seconds(), 0.001)
        return cls(job.state, job.total, processed, rate)


@dataclass(frozen=True, slots=True)
class ShardProgress:
    shard_no: int
    processed: int
    rate: float = 0.0


def progress_key(tenant_id: UUID, kind: str, subject_id: UUID) -> str:
    """Named after the subject: who watches a cycle need not know its job. The tenant is part of it."""
    return f"{CHANNEL}:{tenant_id}:{kind}:{subject_id}"


class ProgressBoard:
    """Reads and writes of one process. `report` returns at once; one task does the writing."""

    def __init__(self, redis: ArqRedis, settings: Settings) -> None:
        self._redis = redis
        self._script = redis.register_script(_TAKE_IF_NEWER)
        self._ttl = settings.progress_ttl_seconds
        self._newest: dict[str, tuple[Job, int, dict[int, ShardProgress]]] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def report(self, job: Job, shard_count: int, *shards: ShardProgress) -> None:
        """What was just committed. Never waits, never fails: what Redis misses, the next report brings."""
        key = progress_key(job.tenant_id, job.kind, job.subject_id)
        _, _, known = self._newest.get(key, (job, shard_count, {}))
        known.update({shard.shard_no: shard for shard in shards})
        self._newest[key] = (job, shard_count, known)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_forever())
        self._idle.clear()
        self._wake.set()

    async def write(self, job: Job, shard_count: int, *shards: ShardProgress) -> bool:
        """The same, awaited. False when Redis is away."""
        final = job.state is JobState.COMPLETED or job.state is JobState.CANCELLED
        values: list[Any] = [
            job.version,
            job.state.value,
            -1 if job.total is None else job.total,
            shard_count,
            self._ttl if final else MOVING_TTL_SECONDS,
            CHANNEL,
        ]
        for shard in shards:
            values += [shard.shard_no, shard.processed, round(shard.rate, 1)]
        try:
            await self._script(keys=[progress_key(job.tenant_id, job.kind, job.subject_id)], args=values)
        except REDIS_FAULTS as error:
            emit("progress_not_written", error=repr(error))
            return False
        return True

    async def read(self, tenant_id: UUID, kind: str, subject_id: UUID) -> Progress | None:
        """None when Redis has nothing, not all of it, or is down: PostgreSQL knows."""
        try:
            stored: Any = await cast(Any, self._redis.hgetall(progress_key(tenant_id, kind, subject_id)))
        except REDIS_FAULTS:
            return None
        return Progress.from_hash(stored)

    async def read_many(self, tenant_id: UUID, jobs: Sequence[tuple[str, UUID]]) -> list[Progress | None]:
        """The same for several kinds and subjects, in one round trip."""
        if not jobs:
            return []
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for kind, subject_id in jobs:
                    pipe.hgetall(progress_key(tenant_id, kind, subject_id))
                return [Progress.from_hash(stored) for stored in await pipe.execute()]
        except REDIS_FAULTS:
            return [None] * len(jobs)

    async def close(self) -> None:
        """Gives what was reported last a moment to get out."""
        if self._writer is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout=1)
        await end_task(self._writer)

    async def _write_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._newest:
                job, shard_count, shards = self._newest.pop(next(iter(self._newest)))
                await self.write(job, shard_count, *shards.values())
            self._idle.set()
