"""Breaking the Nth call of a name, in every way that a call can break, in tasks that are watched and in no others."""

import asyncio
import contextlib
import enum
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import Any

import asyncpg
import redis.exceptions

from core.calls import intercept
from db.database import Connection, Database

Act = Callable[[], Awaitable[Any]]


class Mode(enum.StrEnum):
    REFUSED = "error before"
    CUT = "cut before"
    LOST = "answer lost"
    CANCELLED = "cancelled at"
    CANCELLED_AFTER = "cancelled after"
    STALLED = "stalls"
    """For less than a lease, while another node works beside it: whatever can come in between does."""
    FROZEN = "hangs"
    """Past its lease: others take over, and it goes on afterwards, knowing nothing of them."""
    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"


KILLS = (Mode.KILLED_BEFORE, Mode.KILLED_AFTER)


@dataclass(frozen=True, slots=True)
class Point:
    """The `nth` call of `name`; of an empty name: the `nth` call at all."""

    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.name or 'any'}@{self.nth}"

    def fault(self, mode: Mode) -> str:
        """As `GUTHI_FAULTS` arms a process for it."""
        before = "" if mode is Mode.KILLED_BEFORE else "after_"
        return f"{before}{self.name}=kill@{self.nth}"


_watch: ContextVar["Watch | None"] = ContextVar("watch", default=None)
_connection: ContextVar[Connection | None] = ContextVar("connection", default=None)


class Watch:
    """Sees the calls of one system, notes their order, and breaks the one that it was told to."""

    def __init__(
        self,
        mode: Mode | None = None,
        point: Point | None = None,
        second: Mode | None = None,
        later: int = 0,
    ) -> None:
        self.mode, self.point = mode, point
        self._second, self._later = second, later
        self.calls: list[Point] = []
        self.hit_at: float | None = None
        self.done_at = 0.0
        self.stalls_only = False
        self.frozen, self.thawed = asyncio.Event(), asyncio.Event()
        self._seen: Counter[str] = Counter()

    def begin(self) -> None:
        """Inside `watching`: this alone watches what this task does from here on, and every task that it makes."""
        _watch.set(self)

    @staticmethod
    def end() -> None:
        """From here on this task is watched by nobody."""
        _watch.set(None)

    async def around(self, name: str, act: Act) -> Any:
        if self.frozen.is_set():  # the whole process stands still
            await self.thawed.wait()
            return await act()
        self._seen[name] += 1
        self.calls.append(Point(name, self._seen[name]))
        mode = self.mode
        if mode is None or self.point not in (self.calls[-1], Point("", len(self.calls))):
            return await act()
        self.hit_at = self.hit_at or monotonic()
        self.mode, self.point, self._second = self._second, Point("", len(self.calls) + self._later), None
        return await (self._break_redis if name.startswith("redis:") else self._break_sql)(mode, act)

    async def _break_sql(self, mode: Mode, act: Act) -> Any:
        connection = _connection.get()
        assert connection is not None, "a statement without a session of the pool"
        match mode:
            case Mode.REFUSED:
                await connection.execute("DO $$ BEGIN RAISE 'injected' USING ERRCODE = '40001'; END $$")
            case Mode.CUT:
                connection.terminate()
            case Mode.LOST:
                await act()
                connection.terminate()
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return await self._hold_up(mode, act)

    async def _break_redis(self, mode: Mode, act: Act) -> Any:
        match mode:
            case Mode.REFUSED:
                raise redis.exceptions.ConnectionError("injected")
            case Mode.CUT:
                raise redis.exceptions.TimeoutError("injected")
            case Mode.LOST:
                await act()
                raise redis.exceptions.ConnectionError("injected, after it took effect")
        return await self._hold_up(mode, act)

    async def _hold_up(self, mode: Mode, act: Act) -> Any:
        task = asyncio.current_task()
        assert task is not None
        if mode is Mode.CANCELLED:
            task.cancel()
        if mode in (Mode.STALLED, Mode.FROZEN):
            self.stalls_only = mode is Mode.STALLED
            self.frozen.set()
            await self.thawed.wait()
        answer = await act()
        if mode is Mode.CANCELLED_AFTER:
            task.cancel()
        return answer


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Calls go by whoever watches the task that makes them. Of injected faults libraries would write pages of log."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("arq", "asyncio"))}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    intercept(_pass)
    try:
        yield
    finally:
        intercept(None)
        for logger, level in levels.items():
            logger.setLevel(level)


async def _pass(name: str, act: Act) -> Any:
    watch = _watch.get()
    return await (act() if watch is None else watch.around(name, act))


class KnownPool:
    """A pool that knows which session the present task has out, so that it can be cut under the task's feet."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._before: dict[int, Connection | None] = {}

    async def acquire(self) -> Connection:
        connection: Connection = await self._pool.acquire()
        self._before[id(connection)] = _connection.get()
        _connection.set(connection)
        return connection

    async def release(self, connection: asyncpg.pool.PoolConnectionProxy) -> None:
        _connection.set(self._before.pop(id(connection)))
        await self._pool.release(connection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def know_sessions(database: Database) -> None:
    database._pool = KnownPool(database._pool)  # type: ignore[assignment]  # what Database uses of a pool
