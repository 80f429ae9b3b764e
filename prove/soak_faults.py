"""What the soak does to its processes, servers and wires, and how long each thing took to get over it."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import psutil

from cli.children import Child
from db.embedded import EmbeddedServerError
from prove.reconnecting import AWAY, Reconnecting
from prove.soak_load import Record
from prove.soak_stage import Stage

GAP_SECONDS = (0.5, 4.0)
FAULT_SECONDS = (0.1, 4.0)
"""How long a freeze or an outage lasts: shorter than a lease, and much longer."""
RESTART_SECONDS = 60.0
POLL_SECONDS = 0.05

_APP = "FROM pg_stat_activity WHERE usename = 'guthi_app'"


@dataclass
class Fault:
    """`recovered_at` is when the next batch of anything was committed."""

    kind: str
    struck_at: float
    baseline: int
    lifted_at: float | None = None
    recovered_at: float | None = None

    def seconds_to_recover(self) -> float:
        """From the strike; 0 when the end of the load came before, as then there was nothing to be done."""
        return 0.0 if self.recovered_at is None else self.recovered_at - self.struck_at

    def seconds_it_lasted(self) -> float:
        return 0.0 if self.lifted_at is None else self.lifted_at - self.struck_at


class Chaos:
    def __init__(self, stage: Stage, record: Record, seed: str) -> None:
        self.faults: list[Fault] = []
        self._stage, self._record = stage, record
        self._chance = random.Random(seed)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.longest_peace = 0.0
        """Longest time without a batch while nothing was broken any more."""
        self._walked = 0
        self._breaking = 0
        self._peace_since = time.monotonic()
        self._kinds: dict[str, Callable[[float], contextlib.AbstractAsyncContextManager[None]]] = {
            "worker stopped": lambda _: self._signalled("worker", signal.SIGTERM),
            "worker killed": lambda _: self._signalled("worker", signal.SIGKILL),
            "worker frozen": lambda seconds: self._frozen_child("worker", seconds),
            "API stopped": lambda _: self._signalled("api", signal.SIGTERM),
            "API killed": lambda _: self._signalled("api", signal.SIGKILL),
            "API frozen": lambda seconds: self._frozen_child("api", seconds),
            "Redis killed": self._redis_killed,
            "Redis frozen": self._redis_frozen,
            "Redis flushed": lambda _: self._redis_flushed(),
            "Redis cut off": lambda seconds: self._cut(seconds, redis=True),
            "Redis silent": lambda seconds: self._silent(seconds, redis=True),
            "PostgreSQL stopped": lambda seconds: self._postgres_stopped(seconds, "fast"),
            "PostgreSQL crashed": lambda seconds: self._postgres_stopped(seconds, "immediate"),
            "PostgreSQL killed": self._postgres_killed,
            "PostgreSQL frozen": self._postgres_frozen,
            "PostgreSQL cut off": lambda seconds: self._cut(seconds, redis=False),
            "PostgreSQL silent": lambda seconds: self._silent(seconds, redis=False),
            "sessions ended": lambda _: self._sessions_ended(),
            "session killed": lambda _: self._session_killed(),
        }

    async def rage(self) -> None:
        """One fault after the other, overlapping where they last, until the record is closing; then all are lifted.

        The kinds come in a shuffled order, all of them before any comes again.
        """
        coming: list[str] = []
        async with asyncio.TaskGroup() as faults:
            while not await self._record.pause(self._chance.uniform(*GAP_SECONDS)):
                if not coming:
                    coming = self._chance.sample(list(self._kinds), len(self._kinds))
                faults.create_task(self._strike(coming.pop(), self._chance.uniform(*FAULT_SECONDS)))

    async def watch(self, owner: Reconnecting) -> None:
        """Sees when what was struck gets on again. Runs until it is cancelled."""
        while True:
            with contextlib.suppress(*AWAY):
                walked = await owner.fetchval("SELECT coalesce(sum(processed), 0)::bigint FROM batch_job_shards")
                now = time.monotonic()
                for fault in self.faults:
                    if fault.recovered_at is None:
                        fault.baseline = min(fault.baseline, walked)  # a crash may undo the last moment's batches
                        if walked > fault.baseline:
                            fault.recovered_at = now
                            if not self._breaking:
                                self.longest_peace = max(self.longest_peace, now - self._peace_since)
                self._walked = walked
            await asyncio.sleep(POLL_SECONDS)

    async def _strike(self, kind: str, seconds: float) -> None:
        self._breaking += 1
        async with self._kinds[kind](seconds):
            fault = Fault(kind, time.monotonic(), self._walked)
            self.faults.append(fault)
        fault.lifted_at = self._peace_since = time.monotonic()
        self._breaking -= 1

    @contextlib.asynccontextmanager
    async def _signalled(self, what: str, number: signal.Signals) -> AsyncIterator[None]:
        child = self._any(what)
        async with self._locks[child.name]:
            if child.pid is not None:
                os.kill(child.pid, number)
            yield

    @contextlib.asynccontextmanager
    async def _frozen_child(self, what: str, seconds: float) -> AsyncIterator[None]:
        child = self._any(what)
        async with self._locks[child.name]:
            if (pid := child.pid) is not None:
                os.kill(pid, signal.SIGSTOP)
            yield
            await self._last(seconds)
            if pid is not None and child.pid == pid:
                os.kill(pid, signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def _redis_killed(self, seconds: float) -> AsyncIterator[None]:
        async with self._locks["redis"]:
            await asyncio.to_thread(self._stage.valkey.kill)
            yield
            await self._last(seconds)
            await asyncio.to_thread(self._stage.valkey.start)

    @contextlib.asynccontextmanager
    async def _redis_frozen(self, seconds: float) -> AsyncIterator[None]:
        async with self._locks["redis"]:
            pid = self._stage.valkey.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            yield
            await self._last(seconds)
            os.kill(pid, signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def _redis_flushed(self) -> AsyncIterator[None]:
        async with self._locks["redis"]:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._stage.valkey.port)
            writer.write(b"FLUSHALL\r\n")
            await reader.readline()
            writer.close()
            yield

    @contextlib.asynccontextmanager
    async def _cut(self, seconds: float, *, redis: bool) -> AsyncIterator[None]:
        wire = self._stage.to_redis if redis else self._stage.to_postgres
        async with self._locks[f"wire {redis}"]:
            wire.cut()
            yield
            await self._last(seconds)
            wire.mend()

    @contextlib.asynccontextmanager
    async def _silent(self, seconds: float, *, redis: bool) -> AsyncIterator[None]:
        wire = self._stage.to_redis if redis else self._stage.to_postgres
        async with self._locks[f"wire {redis}"]:
            wire.stall()
            yield
            await self._last(seconds)
            wire.mend()

    @contextlib.asynccontextmanager
    async def _postgres_stopped(self, seconds: float, mode: str) -> AsyncIterator[None]:
        async with self._locks["postgres"]:
            await asyncio.to_thread(self._stage.postgres.stop, mode)  # type: ignore[arg-type]  # one of its two
            yield
            await self._last(seconds)
            await self._start_postgres()

    @contextlib.asynccontextmanager
    async def _postgres_killed(self, seconds: float) -> AsyncIterator[None]:
        async with self._locks["postgres"]:
            for process in self._postgres_processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            yield
            await self._last(seconds)
            await self._start_postgres()

    @contextlib.asynccontextmanager
    async def _postgres_frozen(self, seconds: float) -> AsyncIterator[None]:
        async with self._locks["postgres"]:
            frozen = self._postgres_processes()
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
            await self._last(seconds)
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextlib.asynccontextmanager
    async def _sessions_ended(self) -> AsyncIterator[None]:
        async with self._locks["postgres"]:
            await self._stage.superuser(f"SELECT pg_terminate_backend(pid) {_APP}")
            yield

    @contextlib.asynccontextmanager
    async def _session_killed(self) -> AsyncIterator[None]:
        """PostgreSQL then ends all others, too, and recovers as after a crash."""
        async with self._locks["postgres"]:
            (pid,) = await self._stage.superuser(f"SELECT min(pid) {_APP}")
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            yield

    def _any(self, what: str) -> Child:
        return self._chance.choice(self._stage.workers if what == "worker" else self._stage.apis)

    def _postgres_processes(self) -> list[psutil.Process]:
        """The postmaster first, so that it cannot make new ones."""
        pid = self._stage.postgres.pid
        assert pid is not None
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    async def _start_postgres(self) -> None:
        give_up_at = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                await asyncio.to_thread(self._stage.postgres.start)
                return
            except EmbeddedServerError:
                if time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(0.2)

    async def _last(self, seconds: float) -> None:
        """However this ends, what was broken is mended next: nothing may stay frozen."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._record.pause(seconds)
