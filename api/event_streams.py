"""The feed as it grows: all events of a tenant, or what it tells those who started cycles."""

from collections.abc import Hashable
from typing import Protocol
from uuid import UUID

from api.answers import Event, Notice, Row
from api.streams import Item, Items, to_event
from db.queries import sql
from jobs.engine.engine import Engine
from jobs.engine.progress import CHANNEL

GAP_SECONDS = 0.25
PAGE = 500

KIND_OF_EVENT = {
    "ContributionCycleActivated": "cycle_ready",
    "ContributionCycleFailed": "cycle_failed",
    "ContributionCycleCancelled": "cycle_cancelled",
}


class FeedTopic(Protocol):
    """A topic whose news are places in the feed."""

    key: Hashable
    hint: str
    gap: float
    is_behind: bool

    async def page(self, after: int, user_id: UUID | None) -> list[Item]:
        """The next items after a position; of a notice only the user's own, None: everybody's."""

    async def read(self) -> Items | None: ...

    def present(self) -> Items | None: ...


class _Following:
    """From a position on. Positions are given every few seconds, so it is read once a second, whatever Redis says."""

    gap = GAP_SECONDS
    name = ""

    def __init__(self, engine: Engine, tenant_id: UUID, here: int) -> None:
        self.key: Hashable = (self.name, tenant_id)
        self.hint = f"{CHANNEL}:{tenant_id}:events"
        self._engine, self._tenant_id, self._position = engine, tenant_id, here
        self.is_behind = False

    async def read(self) -> Items | None:
        items = await self.page(self._position, None)
        self.is_behind = len(items) == PAGE
        if not items:
            return None
        self._position = items[-1].number
        return Items(items)

    def present(self) -> Items | None:
        return None

    async def page(self, after: int, user_id: UUID | None) -> list[Item]:
        raise NotImplementedError


class EventsTopic(_Following):
    name = "events"

    async def page(self, after: int, user_id: UUID | None) -> list[Item]:
        async with self._engine.database.transaction(self._tenant_id) as tx:
            return [
                Item(row["position"], to_event("event", Event.of(row).model_dump_json(by_alias=True), row["position"]))
                async for row in sql.read_feed(tx.connection, tenant_id=tx.tenant_id, after=after, limit=PAGE)
            ]


class NoticesTopic(_Following):
    name = "notices"

    async def page(self, after: int, user_id: UUID | None) -> list[Item]:
        async with self._engine.database.transaction(self._tenant_id) as tx:
            rows = sql.read_notices(tx.connection, tenant_id=tx.tenant_id, after=after, created_by=user_id, limit=PAGE)
            return [
                Item(
                    row["position"],
                    to_event("notice", _notice(row).model_dump_json(by_alias=True), row["position"]),
                    row["user_id"],
                )
                async for row in rows
            ]


async def read_notices(engine: Engine, tenant_id: UUID, after: int, user_id: UUID) -> list[Notice]:
    async with engine.database.transaction(tenant_id) as tx:
        rows = sql.read_notices(tx.connection, tenant_id=tenant_id, after=after, created_by=user_id, limit=PAGE)
        return [_notice(row) async for row in rows]


async def last_position(engine: Engine, tenant_id: UUID) -> int:
    async with engine.database.transaction(tenant_id) as tx:
        position: int = await sql.last_position(tx.connection, tenant_id=tenant_id)
    return position


def _notice(row: Row) -> Notice:
    return Notice.of({**row, "kind": KIND_OF_EVENT[row["event_type"]]})
