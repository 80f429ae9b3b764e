"""Sessions of the pages: a signed cookie that names a row. The key itself is in neither.

The cookie is a JWT (HS256, `GUTHI_SESSION_SECRET`). The signature says that we made it; the row says that nobody has
signed out since; the row's key and user are checked at every request, as a key's are. A cookie that was kept after
sign-out, or past its time, opens nothing.
"""

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from uuid import UUID

import jwt
from arq.connections import ArqRedis
from fastapi import Response
from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.requests import HTTPConnection
from starlette.types import Scope

from api.rate_limits import LONGEST_WAIT_SECONDS
from core.errors import RateLimitedError, SessionExpiredError, UnauthorizedError, UserInactiveError
from core.settings import Settings
from core.telemetry import emit
from db.database import Database
from db.queries import sql
from domain.api_keys import Caller, authenticate
from jobs.engine.bell import REDIS_FAULTS

COOKIE = "guthi_session"
FORM_COOKIE = "guthi_form"
"""Binds the sign-in form to a browser that has no session yet."""
WITHIN = "guthi.session"
"""Where a request that the pages make inside of this process carries its session: no header can put it there."""
WRONG_KEYS = parse("20/minute")
"""That an address may send before it must wait."""
_OVER = "this session is over: sign in again"


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie of ours says. Whether it still holds only the database knows, see `Sessions.authenticate`."""

    tenant_id: UUID
    session_id: UUID


class Sessions:
    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._lasts = timedelta(hours=settings.session_hours)
        self._secret = settings.session_secret
        if not self._secret:
            self._secret = secrets.token_hex(32)
            emit("session_secret_made", hint="sessions end with this process: set GUTHI_SESSION_SECRET")

    async def sign_in(self, api_key: str) -> str:
        """The cookie's value for who holds this key. Raises as `authenticate`."""
        caller = await authenticate(self._database, api_key)
        async with self._database.transaction(caller.tenant_id) as tx:
            session_id = await sql.insert_session(
                tx.connection, tenant_id=tx.tenant_id, key_id=caller.key_id, lasts=self._lasts
            )
        emit("signed_in", tenant_id=caller.tenant_id, user_id=caller.user_id, key_id=caller.key_id)
        claims = {
            "ten": str(caller.tenant_id),
            "sid": str(session_id),
            "exp": datetime.now(UTC) + self._lasts,
        }
        return jwt.encode(claims, self._secret, "HS256")

    async def sign_out(self, session: Session) -> None:
        """From the commit on its cookie opens nothing; again is fine."""
        async with self._database.transaction(session.tenant_id) as tx:
            await sql.delete_session(tx.connection, tenant_id=tx.tenant_id, session_id=session.session_id)
        emit("signed_out", tenant_id=session.tenant_id)

    def read(self, cookie: str) -> Session:
        """Raises `SessionExpiredError`, or `UnauthorizedError` for what was not signed here."""
        try:
            claims = jwt.decode(cookie, self._secret, ["HS256"], options={"require": ["exp", "ten", "sid"]})
            return Session(UUID(claims["ten"]), UUID(claims["sid"]))
        except jwt.ExpiredSignatureError:
            raise SessionExpiredError(_OVER) from None
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError):
            raise UnauthorizedError("this session was not begun here: sign in") from None

    async def authenticate(self, session: Session) -> Caller:
        """Who holds this session now, in one round trip. Raises `SessionExpiredError` or `UserInactiveError`."""
        async with self._database.connection() as connection:
            row = await sql.authenticate_session(connection, tenant_id=session.tenant_id, session_id=session.session_id)
        if row is None:
            raise SessionExpiredError(_OVER)
        if not row["is_active"]:
            raise UserInactiveError("this user was deactivated: ask an admin")
        return Caller(row["tenant_id"], row["user_id"], row["role"], row["key_id"], session.session_id)

    def form_token(self, bound_to: str) -> str:
        """What every form carries: bound to one session, or to one browser that has none yet."""
        return hmac.new(self._secret.encode(), f"form {bound_to}".encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, token: str, bound_to: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.form_token(bound_to).encode())

    def set_cookie(
        self, response: Response, scope: Scope, name: str, value: str, lasts: timedelta | None = None
    ) -> None:
        """For this site alone, not for scripts, not over plain HTTP once HTTPS is spoken."""
        seconds = int((lasts or self._lasts).total_seconds())
        response.set_cookie(
            name, value, seconds, httponly=True, samesite="strict", secure=scope["scheme"] == "https", path="/"
        )


class SignInLimits:
    """Wrong keys of one address, counted in Redis for all API processes; in this process alone while Redis is away."""

    def __init__(self, settings: Settings, redis: ArqRedis) -> None:
        # With a pool the address is not read, but its scheme chooses the client.
        shared = RedisStorage("redis://", implementation="redispy", connection_pool=redis.connection_pool)  # type: ignore[arg-type]  # a pool is taken, and documented
        self._shared, self._own = FixedWindowRateLimiter(shared), FixedWindowRateLimiter(MemoryStorage())
        self._name = f"{settings.queue_name}:sign-in"

    async def check(self, address: str) -> None:
        """Raises `RateLimitedError` once the address has sent as many wrong keys as it may."""
        if not await self._ask("test", address):
            wait = WRONG_KEYS.get_expiry()
            raise RateLimitedError(WRONG_KEYS.amount, wait, wait)

    async def count(self, address: str) -> None:
        """It sent a wrong key."""
        await self._ask("hit", address)

    async def _ask(self, what: str, address: str) -> bool:
        asked = (WRONG_KEYS, self._name, _network(address))
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                allowed: bool = await getattr(self._shared, what)(*asked)
        except REDIS_FAULTS as error:
            emit("redis_away", doing="sign_in_limit", error=repr(error))
            allowed = await getattr(self._own, what)(*asked)
        return allowed


def _network(address: str) -> str:
    """Whoever has one address of IPv6 has 2^64 of them."""
    try:
        ip = ip_address(address)
    except ValueError:
        return "unknown"
    return str(ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)


def session_of(connection: HTTPConnection) -> Session | None:
    """The session that a request may act with: the pages' own for anything, a browser's cookie only to read.

    Raises as `Sessions.read`.
    """
    within: Session | None = connection.scope.get(WITHIN)
    if within is not None:
        return within
    cookie = connection.cookies.get(COOKIE)
    if cookie is None or connection.scope["method"] != "GET":
        return None
    sessions: Sessions = connection.app.state.sessions
    return sessions.read(cookie)
