"""The doorbell: one arq job a ring, which names a batch job and nothing else.

A lost ring loses nothing, as the sweeper rings again; a ring too many finds no free shard and ends.
"""

from typing import Any
from uuid import UUID, uuid4

import orjson
from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix
from redis.asyncio import ConnectionPool
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError

from core.calls import call
from core.settings import Settings
from core.telemetry import emit

RING_FUNCTION = "run_job"
CRON = "cron:"
"""How the name of each maintenance run begins, which hangs in the same queue and is no ring."""
MOST_CONNECTIONS = 500
REDIS_FAULTS = (RedisError, OSError, TimeoutError)


class NamedRedis(ArqRedis):
    """arq's client, with each command going through the seam of `core.calls` by its name; a pipeline is one.

    To close it never raises: a socket that does not close in time ends with the process, and what is closed after is.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        return await call(f"redis:{args[0]}", super().execute_command, *args, **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        try:
            await super().aclose(close_connection_pool)
        except REDIS_FAULTS as error:
            emit("redis_away", doing="close", error=repr(error))

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "NamedPipeline":
        return NamedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class NamedPipeline(Pipeline):
    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        return await call(f"redis:{args[0]}", super().immediate_execute_command, *args, **options)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        name = "+".join(str(args[0]) for args, _ in self.command_stack)
        answers: list[Any] = await call(f"redis:{name}", super().execute, raise_on_error)
        return answers


class PlainSpoken(AbstractConnection):
    """Goes before the pool's class of connections: uvloop has a word of its own for a socket that was just cut."""

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*args, **options)
        except RuntimeError as error:
            if "closed" not in str(error):
                raise
            raise ConnectionError(str(error)) from error


def connect_redis(settings: Settings) -> ArqRedis:
    """A client that fails fast: neither a request nor a batch ever waits long for Redis.

    JSON instead of arq's pickle: what lies in Redis must never be able to run code in a worker.
    """
    pool = ConnectionPool.from_url(
        settings.redis_url, max_connections=MOST_CONNECTIONS, socket_timeout=0.5, socket_connect_timeout=0.5
    )
    pool.connection_class = type("Connection", (PlainSpoken, pool.connection_class), {})
    return NamedRedis(
        pool_or_conn=pool,
        job_serializer=to_json,
        job_deserializer=orjson.loads,
        default_queue_name=settings.queue_name,
    )


def to_json(value: Any) -> bytes:
    return orjson.dumps(value, default=str)


def bell_channel(queue_name: str) -> str:
    """Where a ring is published, so that an idle worker wakes at once instead of at its next poll."""
    return f"{queue_name}:bell"


class Bell:
    def __init__(self, redis: ArqRedis, settings: Settings) -> None:
        self._redis = redis
        self._queue = settings.queue_name

    async def ring(self, job_id: UUID, tenant_id: UUID, priority: int = 0) -> bool:
        """Ask for one runner. False when Redis is away; never raises for that.

        The id is fresh each time, as arq refuses one that it still knows. `priority` seconds of head start
        on the queue's score put it before what was rung less than that long ago.
        """
        try:
            await self._redis.enqueue_job(
                RING_FUNCTION,
                str(tenant_id),
                str(job_id),
                _job_id=f"{job_id}:{uuid4().hex}",
                _defer_by=-priority or None,
            )
            await self._redis.publish(bell_channel(self._queue), b"")
        except REDIS_FAULTS as error:
            emit("redis_away", doing="ring", error=repr(error))
            return False
        emit("job_rung", job_id=job_id)
        return True

    async def pending(self) -> set[str]:
        """Ids of the batch jobs for which a ring still hangs in the queue, with no worker on it."""
        queued: list[bytes] = await self._redis.zrange(self._queue, 0, -1)
        rings = [ring for ring in queued if not ring.startswith(CRON.encode())]
        if not rings:
            return set()
        async with self._redis.pipeline(transaction=False) as pipe:
            for ring in rings:
                pipe.exists(in_progress_key_prefix + ring.decode())
            taken = await pipe.execute()
        return {ring.decode().split(":")[0] for ring, is_taken in zip(rings, taken, strict=True) if not is_taken}

    async def depth(self) -> int:
        """Rings in the queue, those in progress among them."""
        return int(await self._redis.zcard(self._queue))
