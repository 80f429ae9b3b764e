"""A node of the system: an API and a worker around one engine, in this process, with cron in our own hands."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import httpx
from fastapi import FastAPI

from api.app import create_app
from core.settings import Settings
from core.tasks import end_task
from jobs.engine.bell import connect_redis
from jobs.engine.engine import Engine
from jobs.maintenance import run_maintenance
from prove.injection import know_sessions
from worker.bell_worker import BellWorker
from worker.main import worker_settings
from worker.presence import Presence

_idle_apps: defaultdict[Settings, list[FastAPI]] = defaultdict(list)
"""To build one takes longer than all that is asked of it here; started anew it knows nothing of the time before."""


class OneRing(BellWorker):
    """Answers one ring, then leaves. (arq's own way of that reads as many rings, and one may be a dead worker's.)"""

    def run_job(self, job_id: str, score: int) -> Coroutine[Any, Any, None]:
        self.allow_pick_jobs = False
        return super().run_job(job_id, score)

    async def _poll_iteration(self) -> None:
        await super()._poll_iteration()
        if not self.allow_pick_jobs and not self.job_counter:
            raise asyncio.CancelledError


class Node:
    """The application's own API and worker; only the cron table is left out, as whoever proves says when it is time."""

    def __init__(self, settings: Settings, api_key: str) -> None:
        self._settings = settings
        self._key = api_key
        self._stack = AsyncExitStack()
        self._worker: BellWorker | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> "Node":
        app = _idle_apps[self._settings].pop() if _idle_apps[self._settings] else create_app(self._settings)
        self._stack.callback(_idle_apps[self._settings].append, app)
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        self.engine: Engine = app.state.engine
        know_sessions(self.engine.database)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {self._key}"}
        client = httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers)
        self.client = await self._stack.enter_async_context(client)
        return self

    async def maintain(self, name: str) -> None:
        await run_maintenance(self.engine, name)

    def work(self, *, by_the_slice: bool = False) -> asyncio.Task[None]:
        """A worker that is there from now on, started again if it ended; `by_the_slice`: it leaves after one ring."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work(OneRing if by_the_slice else BellWorker))
        return self._running

    async def _work(self, kind: type[BellWorker]) -> None:
        if self._worker is not None:
            await self._dismiss(self._worker)
        told: dict[str, Any] = worker_settings(self.engine, connect_redis(self._settings), Presence(self.engine))
        self._worker = kind(**told | {"cron_jobs": [], "max_jobs": 1, "handle_signals": False})
        await self._worker.async_run()

    async def rest(self) -> None:
        """The worker ends what it has in hand, and goes."""
        if self._running is None:
            return
        if self._worker is not None and self._worker.tasks:
            await asyncio.wait(list(self._worker.tasks.values()), timeout=10)
        await end_task(self._running)
        if self._worker is not None:
            await self._dismiss(self._worker)
        self._worker = self._running = None

    async def _dismiss(self, worker: BellWorker) -> None:
        tasks = [*worker.tasks.values(), *([worker.main_task] if worker.main_task else [])]
        for task in tasks:
            await end_task(task)
        worker.tasks.clear()  # arq would ask each how it went
        await worker.close()

    @property
    def sessions_out(self) -> int:
        """Sessions that nobody gave back to the pool: none, when nothing runs."""
        pool = self.engine.database._pool
        return pool.get_size() - pool.get_idle_size()

    async def stop(self) -> None:
        self.engine.stopping.set()
        await self.rest()
        await self._stack.aclose()
