"""Batch jobs of every kind: see them, and steer them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sse_starlette.sse import EventSourceResponse

from api.answers import BatchJob, LogEntry, Page, Rate, Rates, answer, paged
from api.context import CurrentEngine, JobSteerer, Viewer
from api.fields import In, PageQuery, Search, encode_cursor
from api.job_streams import JobsTopic, JobTopic, read_log
from api.shown_jobs import get_job, show_jobs, with_live_rates
from api.streams import LastEventId, documented, respond
from db.database import Transaction
from db.queries import sql
from domain.roles import Permission
from jobs.engine.engine import Engine
from jobs.engine.model import Job, JobState
from jobs.engine.rates import rate_points
from jobs.engine.transitions import cancel_job, pause_job, resume_job, retry_job

router = APIRouter(prefix="/api/jobs", tags=["jobs"])


class JobsQuery(PageQuery):
    kind: Search | None = None
    state: JobState | None = None
    created_by: UUID | None = None
    unfinished: bool = False
    """True: only those that are Queued, Processing or Paused."""


class LogQuery(PageQuery):
    newest: bool = False
    """True: the last `limit` lines; `next` is then where to go on once there are more."""


class StreamQuery(In):
    after: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """The `entryNo` of the last line of the log that is known; 0: all of it."""


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
                created_by=query.created_by,
                unfinished=query.unfinished,
                before=query.below,
                limit=query.limit + 1,
            )
        ]
        items = await show_jobs(engine, tx, [Job.from_row(row) for row in rows[: query.limit]])
    return paged(items, rows, query.limit, "job_id")


@router.get("/stream", **documented("Events `jobs` whose data is `{items: [JobSummary]}`"))
async def stream_all(request: Request, engine: CurrentEngine, caller: Viewer) -> EventSourceResponse:
    """All unfinished jobs, and all of them again whenever one changed, at most four times a second.

    A job that ended is among them once more, with its last state.
    """
    feeds, gate = request.app.state.feeds, request.app.state.gate

    async def events() -> AsyncIterator[bytes]:
        async with feeds.watch(JobsTopic(engine, caller.tenant_id)) as watcher:
            async for news in gate.news(watcher, caller, Permission.VIEW, JobsTopic.gap):
                yield news.event

    return respond(events())


@router.get("/{job_id}", response_model=BatchJob)
async def show(engine: CurrentEngine, caller: Viewer, job_id: UUID) -> Response:
    async with engine.database.transaction(caller.tenant_id) as tx:
        job = await get_job(tx, job_id)
        stored = await show_jobs(engine, tx, [job])
    (shown,) = await with_live_rates(engine, caller.tenant_id, stored)
    return answer(shown)


@router.get("/{job_id}/log", response_model=Page[LogEntry])
async def log(engine: CurrentEngine, caller: Viewer, job_id: UUID, query: Annotated[LogQuery, Query()]) -> Response:
    """Oldest first: its steps, its failures, and the rows that an import refused."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        await get_job(tx, job_id)
        read, limit = (sql.list_newest_job_log, query.limit) if query.newest else (sql.list_job_log, query.limit + 1)
        after = min(query.after.int, 2**63 - 1) if query.after else 0
        rows = [
            {**row, "cursor": UUID(int=row["entry_no"])}
            async for row in read(tx.connection, tenant_id=tx.tenant_id, job_id=job_id, after=after, limit=limit)
        ]
    items = [LogEntry.of(row) for row in rows[: query.limit]]
    if query.newest:
        end = encode_cursor(rows[-1]["cursor"]) if rows else encode_cursor(query.after) if query.after else None
        return answer(Page[Any](items=items, next=end))
    return paged(items, rows, query.limit, "cursor")


@router.get("/{job_id}/stream", **documented("Events `job` whose data is BatchJob, and `log` whose data is LogEntry"))
async def stream_one(
    request: Request,
    engine: CurrentEngine,
    caller: Viewer,
    job_id: UUID,
    query: Annotated[StreamQuery, Query()],
    last_event_id: LastEventId = None,
) -> EventSourceResponse:
    """The job whenever it changed, at most four times a second, and its log line by line.

    It ends once the job has. A client that lost the connection opens it again with `Last-Event-ID`.
    """
    feeds, gate = request.app.state.feeds, request.app.state.gate
    after = query.after if last_event_id is None else last_event_id
    async with engine.database.transaction(caller.tenant_id) as tx:
        job = await get_job(tx, job_id)
        newest = await sql.last_log_entry(tx.connection, tenant_id=tx.tenant_id, job_id=job_id)

    async def events() -> AsyncIterator[bytes]:
        last = after
        async with feeds.watch(JobTopic(engine, job, newest)) as watcher:
            while page := await read_log(engine, caller.tenant_id, job_id, last):
                for item in page:
                    yield item.event
                last = page[-1].number
            async for news in gate.news(watcher, caller, Permission.VIEW, JobTopic.gap):
                if news.log.is_cut:
                    return
                for item in news.log.items:
                    if item.number > last:
                        yield item.event
                        last = item.number
                if news.job is not None:
                    yield news.job
                if news.is_final:
                    return

    return respond(events())


@router.get("/{job_id}/rates", response_model=Rates)
async def rates(engine: CurrentEngine, caller: Viewer, job_id: UUID) -> Response:
    """How fast it went over the whole run, oldest first; at most 200 points, evenly apart."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        job = await get_job(tx, job_id)
        samples = [s async for s in sql.list_job_samples(tx.connection, tenant_id=tx.tenant_id, job_id=job_id)]
    return answer(Rates(items=[Rate(**asdict(point)) for point in rate_points(samples, job.started_at)]))


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
        (shown,) = await show_jobs(engine, tx, [job])
    return answer(shown)
