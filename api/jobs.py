"""Batch jobs of every kind: see them, and steer them."""

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api.answers import BatchJob, LogEntry, Page, answer, paged
from api.context import CurrentEngine, JobSteerer, Viewer
from api.fields import PageQuery, Search
from core.errors import NotFoundError
from db.database import Transaction
from db.queries import sql
from jobs.engine.engine import Engine
from jobs.engine.model import Job, JobState
from jobs.engine.transitions import cancel_job, pause_job, resume_job, retry_job

router = APIRouter(prefix="/api/jobs", tags=["jobs"])


class JobsQuery(PageQuery):
    kind: Search | None = None
    state: JobState | None = None


@router.get("", response_model=Page[BatchJob])
async def list_jobs(engine: CurrentEngine, caller: Viewer, query: Annotated[JobsQuery, Query()]) -> Response:
    """Newest first."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_jobs(
                tx.connection,
                tenant_id=tx.tenant_id,
                kind=query.kind,
                state=query.state,
                before=query.below,
                limit=query.limit + 1,
            )
        ]
        items = await with_shards(tx, [Job.from_row(row) for row in rows[: query.limit]])
    return paged(items, rows, query.limit, "job_id")


@router.get("/{job_id}", response_model=BatchJob)
async def show(engine: CurrentEngine, caller: Viewer, job_id: UUID) -> Response:
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.get_job(tx.connection, tenant_id=tx.tenant_id, job_id=job_id)
        if row is None:
            raise NotFoundError("job", job_id)
        job = Job.from_row(row)
        shards = [s async for s in sql.list_shards(tx.connection, tenant_id=tx.tenant_id, job_ids=[job_id])]
    live = await engine.progress.read(caller.tenant_id, job.kind, job.subject_id)
    return answer(BatchJob.build(job, shards, live))


@router.get("/{job_id}/log", response_model=Page[LogEntry])
async def log(engine: CurrentEngine, caller: Viewer, job_id: UUID, query: Annotated[PageQuery, Query()]) -> Response:
    """Oldest first: its steps, its failures, and the rows that an import refused."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        if await sql.get_job(tx.connection, tenant_id=tx.tenant_id, job_id=job_id) is None:
            raise NotFoundError("job", job_id)
        rows = [
            {**row, "cursor": UUID(int=row["entry_no"])}
            async for row in sql.list_job_log(
                tx.connection,
                tenant_id=tx.tenant_id,
                job_id=job_id,
                after=min(query.after.int, 2**63 - 1) if query.after else 0,
                limit=query.limit + 1,
            )
        ]
    items = [LogEntry.of(row) for row in rows[: query.limit]]
    return paged(items, rows, query.limit, "cursor")


@router.post("/{job_id}/pause", response_model=BatchJob)
async def pause(engine: CurrentEngine, caller: JobSteerer, job_id: UUID) -> Response:
    """Once this has answered, the job makes no further row until it is resumed."""
    return await _steer(engine, caller.tenant_id, job_id, pause_job)


@router.post("/{job_id}/resume", response_model=BatchJob)
async def resume(engine: CurrentEngine, caller: JobSteerer, job_id: UUID) -> Response:
    """It goes on from where it stood."""
    return await _steer(engine, caller.tenant_id, job_id, resume_job)


@router.post("/{job_id}/cancel", response_model=BatchJob)
async def cancel(engine: CurrentEngine, caller: JobSteerer, job_id: UUID) -> Response:
    """Once this has answered, the job makes no further row; what a cancelled cycle has made is removed."""
    return await _steer(engine, caller.tenant_id, job_id, cancel_job)


@router.post("/{job_id}/retry", response_model=BatchJob)
async def retry(engine: CurrentEngine, caller: JobSteerer, job_id: UUID) -> Response:
    """A failed job goes on from its cursors: mend the cause first."""
    return await _steer(engine, caller.tenant_id, job_id, retry_job)


async def _steer(
    engine: Engine, tenant_id: UUID, job_id: UUID, act: Callable[[Engine, Transaction, UUID], Awaitable[Job]]
) -> Response:
    async with engine.database.transaction(tenant_id) as tx:
        job = await act(engine, tx, job_id)
        (shown,) = await with_shards(tx, [job])
    return answer(shown)


async def with_shards(tx: Transaction, jobs: list[Job]) -> list[BatchJob]:
    """Jobs as they are shown, their shards read together."""
    rows = [
        s async for s in sql.list_shards(tx.connection, tenant_id=tx.tenant_id, job_ids=[job.job_id for job in jobs])
    ]
    return [BatchJob.build(job, [row for row in rows if row["job_id"] == job.job_id]) for job in jobs]
