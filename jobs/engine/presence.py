"""Who works here: each worker says so in Redis every few seconds, and is forgotten soon after it stops saying so."""

from collections.abc import Awaitable, Sequence
from typing import cast
from uuid import UUID

import orjson
from arq.connections import ArqRedis
from pydantic import AwareDatetime, BaseModel, ConfigDict

from core.settings import Settings
from core.telemetry import emit
from jobs.engine.bell import REDIS_FAULTS

SAY_SECONDS = 2.0
FORGET_SECONDS = 10


class InHand(BaseModel):
    """A shard that a worker runs."""

    tenant_id: UUID
    job_id: UUID
    kind: str
    subject_id: UUID
    shard_no: int
    since: AwareDatetime


class WorkerPresence(BaseModel):
    """`busy` slots of `concurrency`; `pickup_seconds` are the latest rings' waits."""

    model_config = ConfigDict(extra="ignore")

    worker_id: UUID
    name: str
    host: str
    pid: int
    started_at: AwareDatetime
    seen_at: AwareDatetime
    concurrency: int
    busy: int
    running: Sequence[InHand]
    maintenance: Sequence[str]
    pickup_seconds: Sequence[float]


class PresenceBoard:
    """A key a worker with a lifetime, and a set that names the keys: Redis' own clock decides who is gone."""

    def __init__(self, redis: ArqRedis, settings: Settings) -> None:
        self._redis = redis
        self._set = f"{settings.queue_name}:workers"

    async def say(self, worker: WorkerPresence) -> bool:
        """False when Redis is away: the next time will do."""
        key = self._key(str(worker.worker_id))
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.set(key, worker.model_dump_json(), ex=FORGET_SECONDS)
                pipe.sadd(self._set, str(worker.worker_id))
                await pipe.execute()
        except REDIS_FAULTS as error:
            emit("redis_away", doing="presence", error=repr(error))
            return False
        return True

    async def leave(self, worker_id: UUID) -> None:
        """Goodbye; without Redis it is forgotten a little later."""
        try:
            await self._redis.delete(self._key(str(worker_id)))
        except REDIS_FAULTS as error:
            emit("redis_away", doing="presence", error=repr(error))

    async def read(self) -> list[WorkerPresence] | None:
        """By name; None when Redis is away."""
        try:
            ids = sorted(
                entry.decode() for entry in await cast("Awaitable[set[bytes]]", self._redis.smembers(self._set))
            )
            found = await self._redis.mget([self._key(worker_id) for worker_id in ids]) if ids else []
            gone = [worker_id for worker_id, text in zip(ids, found, strict=True) if text is None]
            if gone:
                await cast("Awaitable[int]", self._redis.srem(self._set, *gone))
        except REDIS_FAULTS:
            return None
        workers = [WorkerPresence(**orjson.loads(text)) for text in found if text is not None]
        return sorted(workers, key=lambda worker: (worker.name, worker.started_at))

    def _key(self, worker_id: str) -> str:
        return f"{self._set}:{worker_id}"
