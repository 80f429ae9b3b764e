"""Server-sent events: serialised once, and only for as long as the caller's key opens."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from uuid import UUID

import asyncpg
from fastapi import Header
from pydantic import WithJsonSchema
from sse_starlette.sse import EventSourceResponse

from api.feeds import News, Watcher
from core.errors import GuthiError
from core.telemetry import emit
from db.database import Database
from db.queries import sql
from domain.api_keys import Caller
from domain.roles import PERMISSIONS, Permission

PING_SECONDS = 15
CHECK_SECONDS = 8.0
"""How often a stream asks whether its caller still may; with the age of the answer never later than 15 s."""
ANSWER_SECONDS = 5.0
"""How long one answer is good for, for all streams of a key."""
MOST_ITEMS = 10_000
"""What one watcher may leave untaken. A client that slow is cut off, and resumes where it was."""

N = TypeVar("N", bound=News)

LastEventId = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, le=2**63 - 1, description="The `id` of the last event: go on after it"),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**63 - 1}),  # left out, never null
]


def to_event(name: str, data: str, number: int | None = None) -> bytes:
    """`data` is JSON and so one line. `number` is what `Last-Event-ID` brings back."""
    head = "" if number is None else f"id: {number}\r\n"
    return f"{head}event: {name}\r\ndata: {data}\r\nretry: 1000\r\n\r\n".encode()


def respond(events: AsyncIterator[bytes]) -> EventSourceResponse:
    return EventSourceResponse(events, ping=PING_SECONDS)


def documented(what: str) -> dict[str, Any]:
    """What a route says of its stream."""
    return {
        "response_class": EventSourceResponse,
        "responses": {200: {"content": {"text/event-stream": {}}, "description": what}},
    }


@dataclass(frozen=True, slots=True)
class Item:
    """One event of a sequence. `user_id`: whom it concerns, where not all watchers."""

    number: int
    event: bytes
    user_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """News of a sequence, in order, none left out. `is_cut`: the watcher was too slow and must begin anew."""

    items: Sequence[Item]
    is_cut: bool = False

    def after(self, missed: "Items") -> "Items":
        if missed.is_cut or len(missed.items) + len(self.items) > MOST_ITEMS:
            return Items((), is_cut=True)
        return Items([*missed.items, *self.items])


class Gate:
    """Whether who began a stream may still have it: keys are revoked, users deactivated, roles changed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[UUID, tuple[float, asyncio.Task[frozenset[Permission]]]] = {}

    async def lets(self, caller: Caller, permission: Permission) -> bool:
        """While PostgreSQL cannot say, it does. All streams of a key that ask at once share one question."""
        now, asked_by = time.monotonic(), caller.session_id or caller.key_id
        asked_at, asking = self._asked.get(asked_by, (now, None))
        if asking is None or now - asked_at >= ANSWER_SECONDS:
            self._asked = {key: asked for key, asked in self._asked.items() if now - asked[0] < ANSWER_SECONDS}
            asking = asyncio.create_task(self._ask(caller))
            self._asked[asked_by] = now, asking
        return permission in await asyncio.shield(asking)

    async def _ask(self, caller: Caller) -> frozenset[Permission]:
        try:
            async with self._database.transaction(caller.tenant_id) as tx:
                role = await sql.live_key_role(
                    tx.connection, tenant_id=tx.tenant_id, key_id=caller.key_id, session_id=caller.session_id
                )
        except (GuthiError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            emit("loop_failed", loop="gate", error=repr(error))
            return frozenset(Permission)
        return frozenset() if role is None else PERMISSIONS[role]

    async def news(self, watcher: Watcher[N], caller: Caller, permission: Permission, gap: float) -> AsyncIterator[N]:
        """What the watcher takes, at least `gap` seconds apart, until the caller may no longer have it."""
        now = asyncio.get_running_loop().time
        check_at = now() + CHECK_SECONDS
        while True:
            news: N | None = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(check_at):
                    await asyncio.sleep(gap)
                    news = await watcher.take()
            if now() >= check_at:
                if not await self.lets(caller, permission):
                    return
                check_at = now() + CHECK_SECONDS
            if news is not None:
                yield news
