"""The loop by which a worker says that it is here, and what it has in hand."""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import uuid4

from core.tasks import end_task
from core.telemetry import emit
from jobs.engine.engine import Engine
from jobs.engine.presence import SAY_SECONDS, InHand, WorkerPresence

PICKUPS_KEPT = 100


class Presence:
    """`start` it, tell it what happens, `stop` it. Without Redis nobody sees the worker, which works all the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._worker_id, self._started_at = uuid4(), datetime.now(UTC)
        self._pickups: deque[float] = deque(maxlen=PICKUPS_KEPT)
        self._maintenance: list[str] = []
        self._stopping = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self, busy: Callable[[], int]) -> None:
        """`busy` tells how many slots are taken."""
        self._loop = asyncio.create_task(self._say_forever(busy))

    async def stop(self) -> None:
        """Asks first; cancels when Redis does not let it end."""
        self._stopping.set()
        if self._loop is not None:
            await asyncio.wait([self._loop], timeout=SAY_SECONDS)
            await end_task(self._loop)
        await self._engine.presence.leave(self._worker_id)

    def picked_up(self, seconds: float) -> None:
        self._pickups.append(round(seconds, 4))

    @contextlib.contextmanager
    def maintaining(self, name: str) -> Iterator[None]:
        self._maintenance.append(name)
        try:
            yield
        finally:
            self._maintenance.remove(name)

    async def _say_forever(self, busy: Callable[[], int]) -> None:
        while not self._stopping.is_set():
            try:
                await self._engine.presence.say(self._now(busy()))
            except Exception as error:  # a defect here must not end the worker, nor be silent
                emit("loop_failed", loop="presence", error=repr(error), exc_info=error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAY_SECONDS):
                    await self._stopping.wait()

    def _now(self, busy: int) -> WorkerPresence:
        return WorkerPresence(
            worker_id=self._worker_id,
            name=self._engine.settings.process_name,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            seen_at=datetime.now(UTC),
            concurrency=self._engine.settings.worker_concurrency,
            busy=busy,
            running=[
                InHand(
                    tenant_id=lease.job.tenant_id,
                    job_id=lease.job.job_id,
                    kind=lease.job.kind,
                    subject_id=lease.job.subject_id,
                    shard_no=lease.shard_no,
                    since=since,
                )
                for lease, since in self._engine.in_hand.values()
            ],
            maintenance=self._maintenance,
            pickup_seconds=list(self._pickups),
        )
