"""The worker process: arq's runtime around the engine. It assembles; it decides nothing.

arq's traps and what covers each: retries are the engine's, so nothing here raises `Retry` and `max_tries` is
only high; results are not kept, as a kept one would refuse its id; JSON, never pickle; the timeout is a slice
with a margin, as the in-progress key of a killed worker lives that long; the read limit exceeds the fleet's
concurrency, as running jobs stay in the queue; nothing in `on_job_start` can raise.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import uvloop
from arq.connections import ArqRedis
from arq.worker import Function, func
from prometheus_client import start_http_server

from core.logs import configure_logs
from core.metrics import REGISTRY, collect_metrics
from core.settings import Settings
from core.telemetry import emit
from core.tracing import start_tracing, stop_tracing
from db.database import Database
from jobs.engine.bell import RING_FUNCTION, connect_redis
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.kinds import KINDS, build_engine
from worker.bell_worker import BellWorker
from worker.cron import cron_jobs
from worker.presence import Presence

SLICE_MARGIN_SECONDS = 60
READ_LIMIT = 1_000


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then end after the batches in hand and give every lease back."""
    configure_logs(settings)
    collect_metrics(kind.name for kind in KINDS)
    start_tracing(settings, "worker")
    if settings.worker_metrics_port:
        start_http_server(settings.worker_metrics_port, registry=REGISTRY)
    uvloop.run(_work(settings))


async def _work(settings: Settings) -> None:
    database, redis = await Database.connect(settings), connect_redis(settings)
    engine = build_engine(settings, database, redis)
    presence = Presence(engine)
    worker = BellWorker(**worker_settings(engine, redis, presence))
    presence.start(lambda: worker.busy)
    emit("worker_started", concurrency=settings.worker_concurrency)
    try:
        with contextlib.suppress(asyncio.CancelledError):  # how arq's main loop ends after a signal
            await worker.async_run()
    finally:
        await presence.stop()
        await engine.progress.close()
        await worker.close()  # closes Redis as well
        await database.close()
        await stop_tracing()
        emit("worker_stopped")


def worker_settings(engine: Engine, redis: ArqRedis, presence: Presence) -> dict[str, Any]:
    """Everything arq is told. As keywords and not as its settings class, which swallows typos."""
    settings = engine.settings
    return {
        "stopping": engine.stopping,
        "functions": [_ring_function(engine, presence)],
        "cron_jobs": cron_jobs(engine, presence),
        "redis_pool": redis,
        "queue_name": settings.queue_name,
        "max_jobs": settings.worker_concurrency,
        "job_timeout": settings.slice_seconds + SLICE_MARGIN_SECONDS,
        "job_completion_wait": settings.stop_seconds,
        "keep_result": 0,
        "max_tries": 1_000_000,
        "queue_read_limit": READ_LIMIT,
        "job_serializer": redis.job_serializer,
        "job_deserializer": redis.job_deserializer,
        "log_results": False,
        "timezone": UTC,
    }


def _ring_function(engine: Engine, presence: Presence) -> Function:
    async def run_ring(ctx: dict[str, Any], tenant_id: str, job_id: str) -> None:
        waited = max(0.0, (datetime.now(UTC) - ctx["enqueue_time"]).total_seconds())
        presence.picked_up(waited)
        emit("job_picked_up", seconds=waited)
        await run_job(engine, UUID(tenant_id), UUID(job_id))

    return func(run_ring, name=RING_FUNCTION)
