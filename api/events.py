"""The feed: every change of the tenant's records, in one order that has no gaps. And what it tells each user."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sse_starlette.sse import EventSourceResponse

from api.answers import Event, Notice, answer
from api.context import CurrentEngine, EventReader, Viewer
from api.event_streams import PAGE, EventsTopic, FeedTopic, NoticesTopic, last_position, read_notices
from api.fields import In, Out
from api.streams import LastEventId, documented, respond
from db.queries import sql
from domain.api_keys import Caller
from domain.roles import Permission

router = APIRouter(prefix="/api", tags=["events"])


class FeedQuery(In):
    after: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """A position: the `next` of the answer before, or 0 for all there ever was."""
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100


class FollowQuery(In):
    after: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """A position. Without it: from now on."""


class Notices(Out):
    items: list[Notice]
    next: int
    """Send it as `after` to go on."""


class Feed(Out):
    items: list[Event]
    next: int
    """Send it as `after` to go on, now or a year later; never null, as a feed has no end. No items: ask again later."""


@router.get("/events", response_model=Feed)
async def read_feed(engine: CurrentEngine, caller: EventReader, query: Annotated[FeedQuery, Query()]) -> Response:
    """All changes after a position, oldest first; for roles that may change things, as it tells everything.

    A change appears a few seconds after its commit, and never before a position that was already read: who keeps
    `next` and goes on from it sees every event exactly once.
    """
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.read_feed(tx.connection, tenant_id=tx.tenant_id, after=query.after, limit=query.limit)
        ]
    return answer(Feed(items=[Event.of(row) for row in rows], next=rows[-1]["position"] if rows else query.after))


@router.get("/events/stream", **documented("Events `event` whose data is Event"))
async def stream_feed(
    request: Request,
    engine: CurrentEngine,
    caller: EventReader,
    query: Annotated[FollowQuery, Query()],
    last_event_id: LastEventId = None,
) -> EventSourceResponse:
    """The feed as it grows. Who lost the connection opens it again with `Last-Event-ID` and misses nothing."""
    here = await last_position(engine, caller.tenant_id)
    topic = EventsTopic(engine, caller.tenant_id, here)
    return respond(_follow(request, caller, Permission.READ_EVENTS, topic, _start(last_event_id, query, here)))


@router.get("/notices", response_model=Notices)
async def list_notices(engine: CurrentEngine, caller: Viewer, query: Annotated[FollowQuery, Query()]) -> Response:
    """How the cycles ended that the caller started, oldest first."""
    here = await last_position(engine, caller.tenant_id)
    if query.after is None:
        return answer(Notices(items=[], next=here))
    found = await read_notices(engine, caller.tenant_id, query.after, caller.user_id)
    following = found[-1].position if len(found) == PAGE else max(here, query.after, *(n.position for n in found))
    return answer(Notices(items=found, next=following))


@router.get("/notices/stream", **documented("Events `notice` whose data is Notice"))
async def stream_notices(
    request: Request,
    engine: CurrentEngine,
    caller: Viewer,
    query: Annotated[FollowQuery, Query()],
    last_event_id: LastEventId = None,
) -> EventSourceResponse:
    """The same as they come, a few seconds after the cycle's end; resumed by `Last-Event-ID`."""
    here = await last_position(engine, caller.tenant_id)
    topic = NoticesTopic(engine, caller.tenant_id, here)
    return respond(_follow(request, caller, Permission.VIEW, topic, _start(last_event_id, query, here)))


def _start(last_event_id: int | None, query: FollowQuery, here: int) -> int:
    if last_event_id is not None:
        return last_event_id
    return here if query.after is None else query.after


async def _follow(
    request: Request, caller: Caller, permission: Permission, topic: FeedTopic, after: int
) -> AsyncIterator[bytes]:
    """First what there is, then what comes; by position, so that nothing comes twice."""
    feeds, gate = request.app.state.feeds, request.app.state.gate
    last = after
    async with feeds.watch(topic) as watcher:
        while page := await topic.page(last, caller.user_id):
            for item in page:
                yield item.event
            last = page[-1].number
        async for news in gate.news(watcher, caller, permission, topic.gap):
            if news.is_cut:
                return
            for item in news.items:
                if item.number > last and item.user_id in (None, caller.user_id):
                    yield item.event
                    last = item.number
