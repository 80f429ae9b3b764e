"""Transactions that break, and sessions that break with them: what comes next begins clean."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from core.calls import intercept
from core.errors import InvalidInputError, UnavailableError
from db.errors import translate
from db.queries import sql
from jobs.engine.engine import Engine
from tests.support import Society


async def test_a_session_that_was_ended_may_be_tried_again_and_is_not_given_out_again(engine: Engine) -> None:
    """The server's goodbye has come, the end of the connection has not: asyncpg has no word for that."""
    said = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
    async with engine.database.connection() as connection:
        connection._con._protocol.data_received(b"E" + (len(said) + 4).to_bytes(4, "big") + said)
    with pytest.raises(asyncpg.InternalClientError) as caught:
        async with engine.database.connection() as connection:
            await sql.ping(connection)
    assert isinstance(translate(caught.value), UnavailableError)
    async with engine.database.connection() as connection:
        assert await sql.ping(connection) == 1


@pytest.mark.parametrize("failure", [ConnectionResetError("cut"), asyncio.CancelledError()], ids=repr)
async def test_a_rollback_that_fails_leaves_no_transaction_to_the_next_one(
    engine: Engine, society: Society, owner: asyncpg.Connection, failure: BaseException
) -> None:
    async def at(name: str, act: Callable[[], Awaitable[Any]]) -> Any:
        if name == "sql:rollback":
            raise failure
        return await act()

    intercept(at)
    try:
        with pytest.raises((InvalidInputError, asyncio.CancelledError)):
            async with engine.database.transaction(society.tenant_id) as tx:
                await tx.connection.execute("UPDATE agents SET name = 'lost' WHERE tenant_id = $1", tx.tenant_id)
                raise InvalidInputError("broken")
    finally:
        intercept(None)
    async with engine.database.connection() as connection:
        assert not connection.is_in_transaction()
    assert await owner.fetchval("SELECT count(*) FROM agents WHERE name = 'lost'") == 0


async def test_what_broke_the_transaction_is_told_and_not_that_its_session_has_gone_too(
    engine: Engine, society: Society
) -> None:
    with pytest.raises(InvalidInputError):
        async with engine.database.transaction(society.tenant_id) as tx:
            tx.connection.terminate()
            raise InvalidInputError("the first word")


@pytest.fixture
def refuse_rollback() -> Iterator[None]:
    """From now on no ROLLBACK gets an answer."""

    async def refuse(name: str, act: Callable[[], Awaitable[Any]]) -> Any:
        if name == "sql:rollback":
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return await act()

    intercept(refuse)
    yield
    intercept(None)


async def test_a_cancelled_task_stays_cancelled_though_its_rollback_fails(
    engine: Engine, society: Society, refuse_rollback: None
) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with engine.database.transaction(society.tenant_id) as tx:
            await tx.connection.execute("UPDATE tiers SET name = 'half done'")
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_savepoint_undoes_what_is_inside_and_nothing_else(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    async with engine.database.transaction(society.tenant_id) as tx:
        await tx.connection.execute("UPDATE tiers SET name = 'outside'")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with tx.savepoint():
                await tx.connection.execute("UPDATE tiers SET name = 'inside'")
                await tx.connection.execute("SELECT 1 / 0")
    assert await owner.fetchval("SELECT name FROM tiers WHERE tier_id = $1", society.tier_id) == "outside"
