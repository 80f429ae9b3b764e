"""The pool and the only two ways into PostgreSQL: a tenant's transaction, and a plain connection.

Every transaction of a tenant opens with one message: `BEGIN`, the tenant, who acts, and how long the server
waits for a client that fell silent inside it. The last is what frees a frozen worker's row locks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from core.calls import call
from core.errors import UnavailableError
from core.settings import Settings
from core.telemetry import emit

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
AfterCommit = Callable[[], Awaitable[object]]

LONGEST_TRANSACTION_SECONDS = 900
"""Staging the largest import takes minutes; past this the client is taken for frozen, and its locks are freed."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes things, for the audit log: a user through a request, or a batch job."""

    user_id: UUID | None = None
    key_id: UUID | None = None
    request_id: str | None = None
    address: str | None = None
    job_id: UUID | None = None

    def setting(self) -> str:
        """As PostgreSQL reads it: JSON without what is None, safely quoted, whatever is in it."""
        told = {
            "user": self.user_id,
            "key": self.key_id,
            "request": self.request_id,
            "address": self.address,
            "job": self.job_id,
        }
        text = orjson.dumps({name: value for name, value in told.items() if value is not None}, default=str).decode()
        return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


@contextlib.contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Every transaction that is opened inside names this actor in the audit log."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def identify_actor(user_id: UUID, key_id: UUID) -> None:
    """The request that is acting has shown its key. Nothing when nobody acts, as for a request that only reads."""
    actor = _actor.get()
    if actor is not None:
        _actor.set(replace(actor, user_id=user_id, key_id=key_id))


class Transaction:
    """An open transaction of one tenant. `after_commit` is for what must only follow a commit."""

    def __init__(self, connection: Connection, tenant_id: UUID) -> None:
        self.connection = connection
        self.tenant_id = tenant_id
        self._after_commit: list[AfterCommit] = []

    def after_commit(self, act: AfterCommit) -> None:
        self._after_commit.append(act)

    @contextlib.asynccontextmanager
    async def planned_anew(self) -> AsyncIterator[None]:
        """Each statement inside is planned anew: a plan made while a table was small reads all of it once it is large.

        Costs two round trips, and up to a millisecond for a statement and for every foreign key that it checks: it is
        for statements that read many rows, not for those that find one by its key.
        """
        await call("sql:plan_anew", self.connection.execute, "SET LOCAL plan_cache_mode = force_custom_plan")
        yield
        await call("sql:keep_plans", self.connection.execute, "SET LOCAL plan_cache_mode = auto")

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """What is done inside is undone alone when it raises, and the transaction can go on. Not to be nested."""
        await call("sql:savepoint", self.connection.execute, "SAVEPOINT inside")
        try:
            yield
        except Exception:
            if not self.connection.is_closed():
                await call("sql:rollback_to_savepoint", self.connection.execute, "ROLLBACK TO SAVEPOINT inside")
            raise


class Database:
    """A pool of the app's role. Open it with `Database.connect`."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings) -> None:
        self._pool = pool
        self._wait = settings.database_pool_wait_seconds
        self._silence_ms = int(settings.lease_seconds * 1_000)

    @classmethod
    async def connect(cls, settings: Settings) -> "Database":
        """Opens no connection yet, so that a process can start while PostgreSQL is away."""
        settings.require("database_url")
        pool = await asyncpg.create_pool(
            settings.database_url,
            min_size=0,
            max_size=settings.database_pool_size,
            statement_cache_size=settings.statement_cache_size,
            max_cached_statement_lifetime=0,
            timeout=settings.database_pool_wait_seconds,
            init=prepare_connection,
            reset=_nothing_to_reset,
        )
        return cls(pool, settings)

    async def close(self) -> None:
        """Waits a moment for the connections in use, then cuts them."""
        try:
            await asyncio.wait_for(self._pool.close(), timeout=2)
        except TimeoutError:
            self._pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection without a tenant, for the functions that cross tenants.

        Raises `UnavailableError` when none is free in time, or PostgreSQL cannot be reached.
        """
        try:
            async with asyncio.timeout(self._wait):  # acquire's own timeout makes a task each time
                connection = await self._pool.acquire()
        except TimeoutError:
            raise UnavailableError("every database connection is busy: try again in a moment") from None
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as error:
            raise UnavailableError("the database cannot be reached: try again in a moment") from error
        try:
            yield connection
        except asyncpg.InternalClientError:
            _cut(connection)  # the server has ended it, which shows too late for the pool not to give it out again
            raise
        finally:
            await self._pool.release(connection)

    @contextlib.asynccontextmanager
    async def transaction(
        self,
        tenant_id: UUID,
        *,
        durable: bool = True,
        longest: float = LONGEST_TRANSACTION_SECONDS,
    ) -> AsyncIterator[Transaction]:
        """One transaction of one tenant: committed at the end, rolled back by any exception.

        `durable=False` answers before the commit is on disk: a crash of PostgreSQL may undo it, whole.
        `longest` seconds after its begin the server ends it, with the session.
        Raises as `connection`; what `after_commit` was given runs once the commit is certain.
        """
        async with self.connection() as connection:
            tx = Transaction(connection, tenant_id)
            try:
                await call("sql:begin", connection.execute, self._begin(tenant_id, durable, longest))
                yield tx
                await call("sql:commit", connection.execute, "COMMIT")
            except BaseException:
                await _roll_back(connection)
                raise
        for act in tx._after_commit:
            await act()

    def _begin(self, tenant_id: UUID, durable: bool, longest: float) -> str:
        """Two limits: a client that freezes between the messages of one statement does not count as idle."""
        begin = (
            f"BEGIN; SELECT set_tenant('{tenant_id}'); "
            f"SET LOCAL idle_in_transaction_session_timeout = {self._silence_ms}; "
            f"SET LOCAL transaction_timeout = {int(longest * 1_000)}"
        )
        if (actor := _actor.get()) is not None:
            begin += f"; SET LOCAL app.actor = {actor.setting()}"
        return begin if durable else begin + "; SET LOCAL synchronous_commit = off"


async def _roll_back(connection: Connection) -> None:
    """Whatever becomes of this, no later transaction finds itself inside of the one that broke.

    What broke it is what the caller hears of: a session that is gone was rolled back by the server. And a cancellation
    stays one: a rollback that fails must not turn it into a lost connection, with which the task would go on.
    """
    try:
        if not connection.is_closed() and connection.is_in_transaction():
            await call("sql:rollback", connection.execute, "ROLLBACK")
    except Exception as error:
        emit("rollback_failed", error=repr(error))
        _cut(connection)
    except BaseException:
        _cut(connection)
        raise


def _cut(connection: Connection) -> None:
    """Its session ends, and the pool gives it to nobody any more."""
    with contextlib.suppress(asyncpg.InterfaceError):  # the pool has taken it back already, as it broke
        connection.terminate()


async def prepare_connection(connection: Connection) -> None:
    """Teach a connection jsonb: Python values in, Python values out."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_to_jsonb, decoder=orjson.loads, format="text"
    )


def _to_jsonb(value: Any) -> str:
    return orjson.dumps(value).decode()


async def _nothing_to_reset(_: Connection) -> None:
    """Only `SET LOCAL` and transaction-level locks are used: the usual reset is a round trip for nothing."""
