"""arq's worker with a bell: an idle one wakes when something is published, instead of at its next poll."""

import asyncio
import contextlib
from collections.abc import Coroutine
from signal import Signals
from typing import Any

from arq.connections import ArqRedis
from arq.worker import Worker

from core.tasks import end_task
from core.telemetry import emit
from jobs.engine.bell import REDIS_FAULTS, bell_channel

POLL_SECONDS = 0.5
"""What arq polls by default: our fallback for a bell that nobody heard."""
RECONNECT_SECONDS = 1.0


class BellWorker(Worker):
    """Three things differ from arq's own worker, each for a trap of its (0.28):

    - between polls it waits for the bell or for a slot to come free: 2 ms to pick up instead of 258;
    - a fault of Redis does not end the main loop, nor eat the slots that `start_jobs` had just counted;
    - on SIGTERM `stopping` is set, so that each run ends after its batch in hand.

    Its health-check key belongs to the queue and not to a worker, and goes with the first that exits: not used.
    """

    def __init__(self, *, stopping: asyncio.Event, **settings: Any) -> None:
        super().__init__(poll_delay=0, **settings)
        self._stopping = stopping
        self._wake = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._slots_taken = 0

    async def main(self) -> None:
        """arq asks Redis as it starts and gives up at the first fault; a worker may well be there first."""
        while True:
            try:
                return await super().main()
            except REDIS_FAULTS as error:
                emit("redis_away", doing="start", error=repr(error))
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _poll_iteration(self) -> None:
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):  # not wait_for: it can swallow the cancel that ends this loop
                await self._wake.wait()
        self._wake.clear()
        try:
            await super()._poll_iteration()
        except REDIS_FAULTS as error:
            emit("redis_away", doing="poll", error=repr(error))
            await self._recount_slots()
            await asyncio.sleep(POLL_SECONDS)

    @property
    def busy(self) -> int:
        """Slots that are taken."""
        return self._slots_taken

    def run_job(self, job_id: str, score: int) -> Coroutine[Any, Any, None]:
        self._slots_taken += 1
        return super().run_job(job_id, score)

    def _release_sem_dec_counter_on_complete(self) -> None:
        self._slots_taken -= 1
        super()._release_sem_dec_counter_on_complete()
        self._wake.set()

    async def _recount_slots(self) -> None:
        """`start_jobs` takes a slot before it asks Redis, and gives it back only when Redis answers."""
        self.job_counter = self._slots_taken  # a task that is done may not have given its slot back yet
        self.sem = asyncio.BoundedSemaphore(self.max_jobs + 1)
        for _ in range(self.job_counter):
            await self.sem.acquire()

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        self._stopping.set()
        self._wake.set()
        super().handle_sig_wait_for_completion(signum)

    async def _wait_for_tasks_to_complete(self, signum: Signals) -> None:
        """arq cancels its main loop once; a library below that swallows it would leave a worker that never ends."""
        await super()._wait_for_tasks_to_complete(signum)
        if self.main_task is not None:
            await end_task(self.main_task)

    async def close(self) -> None:
        if self._listener is not None:
            await end_task(self._listener)
        with contextlib.suppress(*REDIS_FAULTS):  # it says goodbye to Redis, which may have gone first
            await super().close()

    async def _listen(self) -> None:
        redis: ArqRedis = self.pool
        while True:
            try:
                async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(bell_channel(self.queue_name))
                    self._wake.set()  # what was rung before this subscription is in the queue
                    while True:
                        if await pubsub.get_message(timeout=60) is not None:
                            self._wake.set()
            except REDIS_FAULTS:
                await asyncio.sleep(RECONNECT_SECONDS)
