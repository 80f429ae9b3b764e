"""Transactions that end in an unusual way: what is told, what is undone, which session the next one is given."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from core.calls import intercept
from jobs.engine.engine import Engine
from tests.support import Society


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


async def test_a_session_that_could_not_roll_back_is_given_to_nobody(
    engine: Engine, owner: asyncpg.Connection, society: Society, refuse_rollback: None
) -> None:
    with pytest.raises(ValueError, match="what went wrong first"):
        async with engine.database.transaction(society.tenant_id) as tx:
            first = await tx.connection.fetchval("SELECT pg_backend_pid()")
            await tx.connection.execute("UPDATE tiers SET name = 'half done'")
            raise ValueError("what went wrong first")
    async with engine.database.connection() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") != first
    assert await owner.fetchval("SELECT name FROM tiers WHERE tier_id = $1", society.tier_id) == "Tier A"


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
