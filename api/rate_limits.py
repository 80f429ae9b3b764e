"""Rate limits for each key, counted in Redis for all API processes together.

A process takes hits out of a key's window a thousandth of the limit at a time and then gives them away by
itself: the limit is never exceeded, and Redis is asked once for many requests (once for each where the limit is
small). What a process has left when the window ends is lost: at most that thousandth.
Without Redis every request is let through, and a metric counts them.
"""

import asyncio
import time
from dataclasses import dataclass
from math import ceil
from uuid import UUID

from arq.connections import ArqRedis
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import RateLimitedError
from core.settings import Settings
from core.telemetry import emit
from jobs.engine.bell import REDIS_FAULTS

LONGEST_WAIT_SECONDS = 0.25
PAUSE_SECONDS = 1.0
"""After Redis did not answer: how long nobody waits for it."""
SHARE = 1_000
MOST_WINDOWS = 10_000
_TOLD = "guthi.rate_limit"


@dataclass(slots=True)
class _Window:
    """What this process knows of a key's window: it has `leased` hits to give away until `ends_at`."""

    leased: int = 0
    left: int = 0
    is_spent: bool = False
    ends_at: float = 0.0


class RateLimits:
    def __init__(self, settings: Settings, redis: ArqRedis) -> None:
        self._item: RateLimitItem | None = parse(settings.rate_limit) if settings.rate_limit else None
        # With a pool the address is not read, but its scheme chooses the client.
        storage = RedisStorage("redis://", implementation="redispy", connection_pool=redis.connection_pool)  # type: ignore[arg-type]  # a pool is taken, and documented
        self._limiter = FixedWindowRateLimiter(storage)
        self._windows: dict[UUID, _Window] = {}
        self._asks_again_at = 0.0
        if self._item is not None:
            self._chunk = max(1, self._item.amount // SHARE)
            self._policy = b'"default";q=%d;w=%d' % (self._item.amount, self._item.get_expiry())

    async def take(self, scope: Scope, key_id: UUID) -> None:
        """One request of this key: `scope` is told what the headers say. Raises `RateLimitedError`."""
        if self._item is None:
            return
        now = time.time()
        window = self._windows.get(key_id) or self._open(key_id)
        if now >= window.ends_at:
            window.leased, window.is_spent = 0, False
        if not window.leased and not window.is_spent and not await self._lease(key_id, window):
            emit("rate_limit_unchecked")
            return
        seconds = max(1, min(self._item.get_expiry(), ceil(window.ends_at - now)))
        if window.is_spent:
            scope[_TOLD] = (self._policy, b'"default";r=0;t=%d' % seconds)
            raise RateLimitedError(self._item.amount, self._item.get_expiry(), seconds)
        window.leased -= 1
        scope[_TOLD] = (self._policy, b'"default";r=%d;t=%d' % (window.left + window.leased, seconds))

    async def _lease(self, key_id: UUID, window: _Window) -> bool:
        """Take hits out of the shared window. False when Redis did not answer in time."""
        assert self._item is not None
        if time.monotonic() < self._asks_again_at:
            return False
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                is_granted = await self._limiter.hit(self._item, key_id.hex, cost=self._chunk)
                stats = await self._limiter.get_window_stats(self._item, key_id.hex)
        except REDIS_FAULTS as error:
            self._asks_again_at = time.monotonic() + PAUSE_SECONDS
            emit("redis_away", doing="rate_limit", error=repr(error))
            return False
        window.ends_at, window.left = stats.reset_time, max(0, stats.remaining)
        if is_granted:
            window.leased += self._chunk
        else:
            window.is_spent = not window.leased
        return True

    def _open(self, key_id: UUID) -> _Window:
        if len(self._windows) >= MOST_WINDOWS:
            self._windows.clear()  # costs at most what was leased
        window = self._windows[key_id] = _Window()
        return window


class RateLimitHeaders:
    """Plain ASGI: the headers of draft-ietf-httpapi-ratelimit-headers, on answers and refusals alike."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start" and _TOLD in scope:
                policy, limit = scope[_TOLD]
                message["headers"] = [
                    *message["headers"],
                    (b"ratelimit-policy", policy),
                    (b"ratelimit", limit),
                ]
            await send(message)

        await self._app(scope, receive, tell)
