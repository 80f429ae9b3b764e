"""Maintenance: what cron runs when, how it went, and one's own run of it."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api.answers import Page, Row, answer, paged
from api.context import CurrentEngine, MaintenanceRunner, Viewer
from api.fields import Out, PageQuery
from core.errors import NotFoundError
from db.queries import sql
from jobs.maintenance import MAINTENANCE
from jobs.maintenance.by_hand import run_by_hand, running_by_hand
from jobs.maintenance.schedule import schedules

router = APIRouter(prefix="/api/maintenance", tags=["maintenance"])

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class MaintenanceRun(Out):
    run_id: UUID
    started_at: datetime
    completed_at: datetime
    seconds: float
    result: dict[str, Any] | None
    """Null when it failed."""
    error: str | None
    requested_by: UUID | None
    """The user of this society who asked for it; null for cron and for all others."""

    @classmethod
    def from_row(cls, row: Row) -> "MaintenanceRun":
        """Maintenance works for all societies: no id of anything leaves it."""
        seconds = (row["ended_at"] - row["started_at"]).total_seconds()
        told = {**row, "result": _without_ids(row["result"]), "error": _without_ids(row["error"])}
        return cls.of({**told, "completed_at": row["ended_at"], "seconds": round(max(0.0, seconds), 3)})


class Maintenance(Out):
    name: str
    description: str
    schedule: str
    next_run_at: datetime
    running: bool
    """By hand or, as its workers last said, by cron."""
    last_run: MaintenanceRun | None


class MaintenanceList(Out):
    items: list[Maintenance]


@router.get("", response_model=MaintenanceList)
async def list_maintenance(engine: CurrentEngine, caller: Viewer) -> Response:
    now, names = datetime.now(UTC), list(MAINTENANCE)
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = sql.last_maintenance_runs(tx.connection, tenant_id=tx.tenant_id, names=names)
        last = {row["name"]: MaintenanceRun.from_row(row) async for row in rows}
    running = await running_by_hand(engine, names)
    for worker in await engine.presence.read() or ():
        running |= set(worker.maintenance)
    items = [
        Maintenance(
            name=name,
            description=schedule.description,
            schedule=schedule.words,
            next_run_at=schedule.next_run(now),
            running=name in running,
            last_run=last.get(name),
        )
        for name, schedule in schedules(engine.settings).items()
    ]
    return answer(MaintenanceList(items=items))


@router.get("/{name}/runs", response_model=Page[MaintenanceRun])
async def list_runs(engine: CurrentEngine, caller: Viewer, name: str, query: Annotated[PageQuery, Query()]) -> Response:
    """Newest first. Those of jobs that run often are kept for an hour, the others for 90 days."""
    if name not in MAINTENANCE:
        raise NotFoundError("maintenance", name)
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_maintenance_runs(
                tx.connection, tenant_id=tx.tenant_id, name=name, before=query.below, limit=query.limit + 1
            )
        ]
    return paged([MaintenanceRun.from_row(row) for row in rows[: query.limit]], rows, query.limit, "run_id")


@router.post("/{name}/run", response_model=MaintenanceRun)
async def run(engine: CurrentEngine, caller: MaintenanceRunner, name: str) -> Response:
    """Run it now and wait for its end. While somebody else does: 409 `MAINTENANCE_RUNNING`."""
    done = await run_by_hand(engine, name, caller.user_id)
    assert done.row is not None
    return answer(MaintenanceRun.from_row(done.row))


def _without_ids(value: Any) -> Any:
    if isinstance(value, str):
        return _ID.sub("…", value)
    if isinstance(value, Mapping):
        return {_without_ids(key): _without_ids(part) for key, part in value.items()}
    return [_without_ids(part) for part in value] if isinstance(value, list) else value
