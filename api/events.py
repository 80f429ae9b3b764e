"""The feed: every change of the tenant's records, in one order that has no gaps."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from api.answers import answer
from api.context import CurrentEngine, EventReader
from api.fields import In, Out
from db.queries import sql

router = APIRouter(prefix="/api/events", tags=["events"])


class FeedQuery(In):
    after: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """A position: the `next` of the answer before, or 0 for all there ever was."""
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100


class Event(Out):
    position: int
    event_id: UUID
    event_type: str
    aggregate_type: str
    aggregate_id: UUID
    version: int
    """The one that the record has after the change: an aggregate's events are numbered 1, 2, 3, ..."""
    payload_version: int
    payload: dict[str, Any]
    """What the change set."""
    created_by: UUID | None
    """The user who caused it; null for the system itself."""
    created_at: datetime


class Feed(Out):
    items: list[Event]
    next: int
    """Send it as `after` to go on, now or a year later; never null, as a feed has no end. No items: ask again later."""


@router.get("", response_model=Feed)
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
