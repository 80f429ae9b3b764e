"""Workers: who is alive, what each has in hand, and how long work waits for them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Response

from api.answers import answer
from api.context import CurrentEngine, Viewer
from api.fields import Out
from db.queries import sql
from jobs.engine.bell import REDIS_FAULTS

router = APIRouter(prefix="/api/workers", tags=["workers"])


class RunningShard(Out):
    job_id: UUID
    kind: str
    subject_code: str | None
    shard_no: int
    since: datetime


class Worker(Out):
    worker_id: UUID
    name: str
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime
    concurrency: int
    """Slots that it has."""
    busy: int
    """Slots that are taken, for whomever."""
    running: list[RunningShard]
    """What it does for this society."""


class PickupSeconds(Out):
    median: float
    p95: float


class Workers(Out):
    items: list[Worker]
    queue_depth: int | None
    """Rings in the queue, those in progress among them; null while Redis is away."""
    pickup_seconds: PickupSeconds | None
    """From the ring to a worker's hand, over the last ones of each worker; null when there were none."""
    redis: Literal["ok", "away"]


@router.get("", response_model=Workers)
async def list_workers(engine: CurrentEngine, caller: Viewer) -> Response:
    """Each says every 2 s that it is here; one that died is gone after 10 s. They work on without Redis, unseen."""
    present = await engine.presence.read()
    try:
        depth = None if present is None else await engine.bell.depth()
    except REDIS_FAULTS:
        present, depth = None, None
    if present is None:
        return answer(Workers(items=[], queue_depth=None, pickup_seconds=None, redis="away"))
    own = [shard for worker in present for shard in worker.running if shard.tenant_id == caller.tenant_id]
    codes: dict[UUID, str | None] = {}
    if own:
        async with engine.database.transaction(caller.tenant_id) as tx:
            rows = sql.list_job_names(tx.connection, tenant_id=tx.tenant_id, job_ids=[shard.job_id for shard in own])
            codes = {row["job_id"]: row["subject_code"] async for row in rows}
    items = [
        Worker.of(
            {
                **vars(worker),
                "running": [
                    RunningShard.of({**vars(shard), "subject_code": codes.get(shard.job_id)})
                    for shard in worker.running
                    if shard.tenant_id == caller.tenant_id
                ],
            }
        )
        for worker in present
    ]
    waits = sorted(seconds for worker in present for seconds in worker.pickup_seconds)
    return answer(Workers(items=items, queue_depth=depth, pickup_seconds=_pickup(waits), redis="ok"))


def _pickup(waits: Sequence[float]) -> PickupSeconds | None:
    if not waits:
        return None
    return PickupSeconds(median=waits[len(waits) // 2], p95=waits[len(waits) * 95 // 100])
