"""News to many: all who watch the same thing in this process share one reader of it.

A topic says how to read, once a change for all of them, and serialises what it read once, however many watch.
A change is told through Redis; without it the watched things are read from PostgreSQL, once a second. Both may go
away and come back: the watchers wait.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Hashable
from typing import Any, Generic, Protocol, Self, TypeVar

from arq.connections import ArqRedis

from core.tasks import end_task
from core.telemetry import emit
from jobs.engine.bell import REDIS_FAULTS
from jobs.engine.progress import CHANNEL

FALLBACK_SECONDS = 1.0
MOST_TOLD = 1_000
"""What one reader tells in a second: of one topic each hears less often when many watch, and the job is not held up."""


class News(Protocol):
    def after(self, missed: Self) -> Self:
        """What to tell who has not taken `missed` yet: a slow client gets one thing, not a backlog."""


N = TypeVar("N", bound=News)
Told = TypeVar("Told", bound=News, covariant=True)


class Topic(Protocol[Told]):
    """Something to watch. Topics of the same key are the same: the first watcher's is read, for all."""

    key: Hashable
    hint: str
    """The progress key whose change is news, or the beginning of several: up to the tenant."""
    gap: float
    """Shortest time between two reads, in seconds; longer with more than `gap * MOST_TOLD` watchers."""

    is_behind: bool
    """The last read did not reach the end: the next one need not wait for a change."""

    async def read(self) -> Told | None:
        """What is new since the last call; None when nothing is."""

    def present(self) -> Told | None:
        """What a new watcher is given of what others were told already."""


class Watcher(Generic[N]):
    """Takes the news of one topic for one client."""

    def __init__(self) -> None:
        self._news: N | None = None
        self._arrived = asyncio.Event()

    def put(self, news: N) -> None:
        self._news = news if self._news is None else news.after(self._news)
        self._arrived.set()

    async def take(self) -> N:
        """Waits for what was not taken yet."""
        await self._arrived.wait()
        self._arrived.clear()
        news, self._news = self._news, None
        assert news is not None
        return news


class _Reader:
    def __init__(self, topic: Topic[Any]) -> None:
        self.topic = topic
        self.watchers: set[Watcher[Any]] = set()
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Feeds:
    """The readers of this process, and its one subscription to Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._readers: dict[Hashable, _Reader] = {}
        self._hints: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def watch(self, topic: Topic[N]) -> AsyncIterator[Watcher[N]]:
        """From now on nothing is missed: read what was before inside of the block.

        >>> async with feeds.watch(JobsTopic(engine, tenant_id)) as watcher:
        ...     news = await watcher.take()
        """
        reader = self._readers.setdefault(topic.key, _Reader(topic))
        watcher: Watcher[N] = Watcher()
        if (present := reader.topic.present()) is not None:
            watcher.put(present)
        reader.watchers.add(watcher)
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        if reader.task is None:
            reader.task = asyncio.create_task(self._read_while_watched(reader))
        try:
            yield watcher
        finally:
            reader.watchers.discard(watcher)

    async def close(self) -> None:
        tasks = [reader.task for reader in self._readers.values() if reader.task]
        tasks += [self._listener] if self._listener else []
        await asyncio.gather(*map(end_task, tasks))

    async def _read_while_watched(self, reader: _Reader) -> None:
        topic = reader.topic
        self._hints[topic.hint].add(reader.changed)
        try:
            while reader.watchers:
                try:
                    news = await topic.read()
                except Exception as error:  # PostgreSQL and Redis both away: the watchers wait for either
                    emit("loop_failed", loop="feeds", error=repr(error))
                    news = None
                if news is not None:
                    for watcher in reader.watchers:
                        watcher.put(news)
                gap = max(topic.gap, len(reader.watchers) / MOST_TOLD)
                await asyncio.sleep(gap)
                if not topic.is_behind:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FALLBACK_SECONDS - gap):
                            await reader.changed.wait()
                reader.changed.clear()
        finally:
            del self._readers[topic.key]
            self._hints[topic.hint].discard(reader.changed)
            if not self._hints[topic.hint]:
                del self._hints[topic.hint]

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    while True:
                        message = await pubsub.get_message(timeout=FALLBACK_SECONDS)
                        if message:
                            self._wake(message["data"].decode())
            except REDIS_FAULTS as error:
                emit("redis_away", doing="listen", error=repr(error))
                await asyncio.sleep(FALLBACK_SECONDS)

    def _wake(self, progress_key: str) -> None:
        for hint in (progress_key, progress_key.rsplit(":", 2)[0]):
            for changed in self._hints.get(hint, ()):
                changed.set()
