"""Contribution cycles: start one, read them, watch one being created."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import Field
from sse_starlette.sse import EventSourceResponse
from starlette.routing import Route

from api.answers import Contribution, CreationProgress, Cycle, Event, Page, answer, page_of, paged
from api.context import CurrentEngine, CycleStarter, Viewer, may_view
from api.fields import WHOLE, CycleStatus, In, Money, Out, PageQuery, Search
from api.idempotency import PARAMETER, IdempotencyKey, once
from api.progress import ProgressTopic, read_progress
from api.streams import documented, respond
from core.errors import NotFoundError
from db.database import Transaction
from db.queries import sql
from domain.api_keys import Caller
from domain.cycles import NewCycle, preview_cycle
from domain.idempotency_keys import StoredAnswer
from domain.roles import Permission
from jobs.create_contributions import CreateContributions, Strategy, start_cycle, strategy_for
from jobs.engine.progress import Progress

router = APIRouter(prefix="/api/contribution-cycles", tags=["contribution cycles"])


class StartCycle(In):
    tier_id: UUID
    deceased_member_id: UUID
    claim_id: UUID | None = None
    contribution_amount: Money | None = None
    """Null: what the tier says."""
    benefit_amount: Money | None = None
    """Null: what the tier says."""
    duration_days: Annotated[int, Field(ge=1, le=3_650, strict=True), WHOLE] = 15
    strategy: Strategy = "auto"
    priority: Annotated[int, Field(ge=0, le=3_600, strict=True), WHOLE] = 0
    """Head start in the queue, in seconds."""


class CyclePreviewed(Out):
    tier_id: UUID
    deceased_member_id: UUID
    deceased_name: str
    total_members: int
    """How many owe now."""
    strategy: Strategy
    """`inline`: created at once; `queued`: by workers."""
    contribution_amount: Decimal
    benefit_amount: Decimal
    target_amount: Decimal
    start_date: date
    deadline: date


class CycleEvents(Out):
    items: list[Event]


class ContributionsQuery(PageQuery):
    search: Search | None = None
    """What the member's number begins with, in whatever case."""


class CyclesQuery(PageQuery):
    status: CycleStatus | None = None


@router.post(
    "",
    status_code=202,
    response_model=Cycle,
    responses={201: {"model": Cycle, "description": "The cycle was small: it is `Active` already"}},
    openapi_extra=PARAMETER,
)
async def start(
    request: Request, engine: CurrentEngine, caller: CycleStarter, key: IdempotencyKey, body: StartCycle
) -> Response:
    """Start a cycle: 202 `Initializing` when workers create it, 201 `Active` when it was small enough to do at once."""

    async def act(tx: Transaction) -> StoredAnswer:
        cycle, is_active = await start_cycle(
            engine, tx, _new(body), caller.user_id, strategy=body.strategy, priority=body.priority
        )
        shown = await _load(tx, cycle["cycle_id"])
        return StoredAnswer(
            201 if is_active else 202, f"{router.prefix}/{shown.cycle_id}", shown.model_dump_json(by_alias=True)
        )

    content = hashlib.sha256(body.model_dump_json().encode()).digest()
    return await once(engine.database, caller, key, request, content, act)


@router.post("/preview", response_model=CyclePreviewed)
async def preview(engine: CurrentEngine, caller: CycleStarter, body: StartCycle) -> Response:
    """What starting it now would come to; refused as that would be, and nothing is changed."""
    async with engine.database.transaction(caller.tenant_id) as tx, tx.planned_anew():
        found = await preview_cycle(tx, _new(body))
    return answer(
        CyclePreviewed(
            tier_id=body.tier_id,
            deceased_member_id=body.deceased_member_id,
            strategy=strategy_for(engine, body.strategy, found.total_members),
            target_amount=found.contribution_amount * found.total_members,
            **asdict(found),
        )
    )


@router.get("/preview", include_in_schema=False)
async def no_such_method() -> None:
    """Else it would be taken for a cycle's id."""
    raise HTTPException(405)


@router.get("", response_model=Page[Cycle])
async def list_cycles(engine: CurrentEngine, caller: Viewer, query: Annotated[CyclesQuery, Query()]) -> Response:
    """Newest first."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_cycles(
                tx.connection, tenant_id=tx.tenant_id, status=query.status, before=query.below, limit=query.limit + 1
            )
        ]
    moving = [row["cycle_id"] for row in rows[: query.limit] if row["cycle_status"] == "Initializing"]
    kind = CreateContributions.name
    found = await engine.progress.read_many(caller.tenant_id, [(kind, cycle_id) for cycle_id in moving])
    live = dict(zip(moving, found, strict=True))
    items = [Cycle.from_row(row, live.get(row["cycle_id"])) for row in rows[: query.limit]]
    return paged(items, rows, query.limit, "cycle_id")


@router.get("/{cycle_id}", response_model=Cycle)
async def show(engine: CurrentEngine, caller: Viewer, cycle_id: UUID) -> Response:
    live = await engine.progress.read(caller.tenant_id, CreateContributions.name, cycle_id)
    async with engine.database.transaction(caller.tenant_id) as tx:
        return answer(await _load(tx, cycle_id, live))


@router.get("/{cycle_id}/events", response_model=CycleEvents)
async def list_events(engine: CurrentEngine, caller: Viewer, cycle_id: UUID) -> Response:
    """What happened to the cycle, oldest first. `position` is null until the feed has taken an event in."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        await _load(tx, cycle_id)
        rows = sql.list_aggregate_events(tx.connection, tenant_id=tx.tenant_id, aggregate_id=cycle_id)
        return answer(CycleEvents(items=[Event.of(row) async for row in rows]))


@router.get(
    "/{cycle_id}/creation-progress",
    response_model=CreationProgress,
    responses={304: {"description": "Nothing has changed since the answer with this `ETag`"}},
)
async def creation_progress(request: Request, caller: Viewer, cycle_id: UUID) -> Response:
    """From Redis, or from PostgreSQL when Redis has nothing. 304 while the last answer's `ETag` still holds."""
    return await _answer_progress(request, caller, cycle_id)


async def _poll_progress(request: Request) -> Response:
    return await _answer_progress(request, await may_view(request), request.path_params["cycle_id"])


async def _answer_progress(request: Request, caller: Caller, cycle_id: UUID) -> Response:
    progress = await read_progress(request.app.state.engine, caller.tenant_id, cycle_id)
    body = progress.model_dump_json(by_alias=True)
    etag = f'"{hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()}"'
    known = request.headers.get("If-None-Match", "")
    if etag in known or known.strip() == "*":
        return Response(status_code=304, headers={"ETag": etag})
    return Response(body, headers={"ETag": etag}, media_type="application/json")


# Every watcher polls this. It is `creation_progress` without FastAPI's solving of dependencies, a third of its time.
polled = Route(router.prefix + "/{cycle_id:uuid}/creation-progress", _poll_progress)
polled.methods = {"GET"}


@router.get("/{cycle_id}/creation-progress/stream", **documented("Events `progress` whose data is CreationProgress"))
async def stream(request: Request, engine: CurrentEngine, caller: Viewer, cycle_id: UUID) -> EventSourceResponse:
    """The same as server-sent events, at most ten a second; the last one when nothing more will come.

    When more than a hundred watch, each is told less often: a process sends a thousand a second of one cycle at most.
    A client that lost the connection opens it again and is given the present state first.
    """
    feeds, gate = request.app.state.feeds, request.app.state.gate
    topic = ProgressTopic(engine, caller.tenant_id, cycle_id)
    first = await topic.read()

    async def events() -> AsyncIterator[bytes]:
        shown = first
        yield shown.event
        if shown.progress.status != "Initializing":
            return
        async with feeds.watch(topic) as watcher:
            async for news in gate.news(watcher, caller, Permission.VIEW, topic.gap):
                if news.progress != shown.progress:
                    yield news.event
                shown = news
                if shown.progress.status != "Initializing":
                    return

    return respond(events())


@router.get("/{cycle_id}/contributions", response_model=Page[Contribution])
async def list_contributions(
    engine: CurrentEngine, caller: Viewer, cycle_id: UUID, query: Annotated[ContributionsQuery, Query()]
) -> Response:
    """In the order of the members. Empty while the cycle is not whole: half of the rows would mislead."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        cycle = await _load(tx, cycle_id)
        rows = []
        if _is_whole(cycle):
            asked = {"tenant_id": tx.tenant_id, "cycle_id": cycle_id, "after": query.above, "limit": query.limit + 1}
            if query.search is None:
                rows = [row async for row in sql.list_contributions(tx.connection, **asked)]
            else:
                async with tx.planned_anew():
                    found = sql.search_contributions(tx.connection, **asked, search=query.search)
                    rows = [row async for row in found]
    return page_of(Contribution, rows, query.limit, "member_id")


@router.get("/{cycle_id}/contributions/{member_id}", response_model=Contribution)
async def show_contribution(engine: CurrentEngine, caller: Viewer, cycle_id: UUID, member_id: UUID) -> Response:
    async with engine.database.transaction(caller.tenant_id) as tx:
        cycle = await _load(tx, cycle_id)
        row = await sql.get_contribution(tx.connection, tenant_id=tx.tenant_id, cycle_id=cycle_id, member_id=member_id)
    if row is None or not _is_whole(cycle):
        raise NotFoundError("contribution", member_id)
    return answer(Contribution.of(row))


def _new(body: StartCycle) -> NewCycle:
    return NewCycle(
        body.tier_id,
        body.deceased_member_id,
        body.claim_id,
        body.contribution_amount,
        body.benefit_amount,
        body.duration_days,
    )


async def _load(tx: Transaction, cycle_id: UUID, live: Progress | None = None) -> Cycle:
    row = await sql.get_cycle(tx.connection, tenant_id=tx.tenant_id, cycle_id=cycle_id)
    if row is None:
        raise NotFoundError("cycle", cycle_id)
    return Cycle.from_row(row, live)


def _is_whole(cycle: Cycle) -> bool:
    return cycle.cycle_status in ("Active", "Completed")
