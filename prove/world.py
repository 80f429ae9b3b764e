"""Where proofs take place: servers of their own, databases copied from one that holds a society, exact checks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import redis.asyncio

from core.settings import Settings
from jobs.engine.progress import ProgressBoard
from jobs.invariants import AUDIT, INVARIANTS, broken_invariants, broken_sequences
from tests.support import Servers, Society, make_society, running_servers

Row = asyncpg.Record


_KEEP = """
CREATE SCHEMA kept;
DO $$ DECLARE t regclass; BEGIN
    FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('CREATE TABLE kept.%I AS TABLE public.%I', t::text, t::text);
    END LOOP;
END $$;
"""
_RESTORE = """
SET session_replication_role = replica; -- neither triggers nor foreign keys: the tables are put back as they were
ALTER TABLE contributions DROP CONSTRAINT IF EXISTS planted;
DROP FUNCTION IF EXISTS fill_disk CASCADE;
DROP SEQUENCE IF EXISTS batches;
DO $$ DECLARE t text; differs boolean; is_kept boolean; columns text; BEGIN
    FOR t IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM kept.%I)', t) INTO is_kept;
        IF NOT is_kept THEN
            EXECUTE format('DELETE FROM public.%I', t);
        ELSE
            EXECUTE format(
                'SELECT EXISTS ((TABLE public.%1$I EXCEPT TABLE kept.%1$I) UNION ALL'
                ' (TABLE kept.%1$I EXCEPT TABLE public.%1$I))', t) INTO differs;
            IF differs THEN
                SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute
                WHERE attrelid = format('public.%I', t)::regclass AND attnum > 0 AND attgenerated = '';
                EXECUTE format('DELETE FROM public.%I', t);
                EXECUTE format(
                    'INSERT INTO public.%1$I (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM kept.%1$I', t, columns);
            END IF;
        END IF;
    END LOOP;
END $$;
"""
DATABASES_OF_VALKEY = 16


@dataclass(frozen=True)
class Place:
    """A database and a queue of one's own. `owner` sees every tenant; `neighbour` is a tenant nobody works for."""

    settings: Settings
    owner: asyncpg.Connection
    society: Society
    neighbour: Society


class World:
    """Open it with `World.open`; then `async with world.place() as place`, up to 16 at once."""

    def __init__(self, servers: Servers, societies: tuple[Society, Society]) -> None:
        self.servers = servers
        self._societies = societies
        self._free = list(range(DATABASES_OF_VALKEY))
        self._made: set[int] = set()
        self._making = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, members: int, agents: int = 3) -> AsyncIterator["World"]:
        """fsync is off: what is proven here is what clients survive; nobody cuts the power."""
        with running_servers() as servers:
            server = await asyncpg.connect(servers.postgres.superuser_url)
            await server.execute("ALTER SYSTEM SET fsync = off")
            await server.execute("SELECT pg_reload_conf()")
            await server.close()
            owner = await asyncpg.connect(servers.postgres.admin_url)
            society = await make_society(owner, members, agents=agents)
            neighbour = await make_society(owner, 7, prefix="NBR", agents=1)
            await owner.close()
            yield cls(servers, (society, neighbour))

    @contextlib.asynccontextmanager
    async def place(self, **settings: object) -> AsyncIterator[Place]:
        """As the world was when it was opened, whatever happened here before.

        `settings` may be outside of what users may set. Raises `IndexError` when all places are taken.
        """
        number = self._free.pop()
        try:
            await self._make_or_restore(number)
            name = f"p{number}"
            base = Settings(
                _env_file=None,
                database_url=self.servers.postgres.app_url.replace("/guthi?", f"/{name}?"),
                admin_database_url=self.servers.postgres.admin_url.replace("/guthi?", f"/{name}?"),
                redis_url=self._redis_url(number),
                queue_name=f"queue:{name}",
            )
            owner = await asyncpg.connect(base.admin_database_url)
            try:
                yield Place(base.model_copy(update=settings), owner, *self._societies)
            finally:
                owner.terminate()
        finally:
            self._free.append(number)

    async def superuser(self, statement: str) -> None:
        """Run a statement that only a superuser may."""
        server = await asyncpg.connect(self.servers.postgres.superuser_url)
        try:
            await server.execute(statement)
        finally:
            await server.close()

    def _redis_url(self, number: int) -> str:
        return f"{self.servers.valkey.url.removesuffix('0')}{number}"

    async def _make_or_restore(self, number: int) -> None:
        url = self.servers.postgres.superuser_url
        if number not in self._made:
            async with self._making:  # while one is copied, nobody may be in what it is copied from
                server = await asyncpg.connect(url)
                await server.execute(f"CREATE DATABASE p{number} TEMPLATE guthi OWNER guthi_owner")
                await server.close()
        database = await asyncpg.connect(url.replace("/postgres?", f"/p{number}?"))
        await database.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await database.execute(_RESTORE if number in self._made else _KEEP)
        await database.close()
        self._made.add(number)
        await flush_redis(self._redis_url(number))


async def flush_redis(url: str) -> None:
    """By a client that, unlike the application's, is patient, and whose calls are none of the system's."""
    valkey: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url)
    await valkey.flushdb()
    await valkey.aclose(close_connection_pool=True)


async def broken(owner: asyncpg.Connection, board: ProgressBoard | None = None) -> list[str]:
    """Every invariant there is, of all tenants: what `guthi doctor` and `guthi audit verify` ask, and more."""
    found = await broken_invariants(owner, board, (*INVARIANTS, AUDIT)) + await broken_sequences(owner)
    return [f"{one.invariant}: {one.subject}: {one.detail}" for one in found]


async def members_who_owe(owner: asyncpg.Connection, tenant_id: UUID, tier_id: UUID) -> set[UUID]:
    """As the tables say now, found without any query of the system's own."""
    rows = await owner.fetch(
        "SELECT member_id FROM members WHERE tenant_id = $1 AND tier_id = $2 AND status = 'Active'", tenant_id, tier_id
    )
    return {row["member_id"] for row in rows}


async def wrong_contributions(owner: asyncpg.Connection, cycle_id: UUID, owing: set[UUID]) -> list[str]:
    """The rows against who owes: one each, of the cycle's amount and deadline, pending, none of anybody else."""
    cycle = await owner.fetchrow("SELECT * FROM contribution_cycles WHERE cycle_id = $1", cycle_id)
    if cycle is None:
        return [f"cycle {cycle_id} is not there"]
    rows = await owner.fetch("SELECT * FROM contributions WHERE cycle_id = $1", cycle_id)
    made = [row["member_id"] for row in rows]
    wanted = (cycle["tenant_id"], cycle["contribution_amount"], cycle["deadline"], "Pending")
    return found(
        (len(made) != len(set(made)), lambda: f"{len(made) - len(set(made))} members have a second contribution"),
        (bool(owing - set(made)), lambda: f"{len(owing - set(made))} members who owe have no contribution"),
        (bool(set(made) - owing), lambda: f"{len(set(made) - owing)} members have one and do not owe"),
        (any(_said(row) != wanted for row in rows), lambda: "a contribution's tenant, amount, date or state is wrong"),
    )


async def wrong_notifications(owner: asyncpg.Connection, cycle_id: UUID, owing: set[UUID]) -> list[str]:
    """Exactly one word to each agent who has members that owe, with their number and their sum."""
    amount = await owner.fetchval("SELECT contribution_amount FROM contribution_cycles WHERE cycle_id = $1", cycle_id)
    agents = await owner.fetch("SELECT agent_id FROM members WHERE member_id = any($1)", list(owing))
    each = [row["agent_id"] for row in agents if row["agent_id"] is not None]
    wanted = sorted((agent, each.count(agent), each.count(agent) * amount) for agent in set(each))
    told = await owner.fetch("SELECT * FROM notifications WHERE cycle_id = $1", cycle_id)
    said = sorted((row["agent_id"], row["member_count"], row["total_amount"]) for row in told)
    return found((said != wanted, lambda: f"{len(told)} notifications for {len(wanted)} agents, or of other sums"))


def found(*checks: tuple[bool, Callable[[], str]]) -> list[str]:
    """The words of those that are true."""
    return [say() for is_wrong, say in checks if is_wrong]


def _said(row: Row) -> Sequence[object]:
    return row["tenant_id"], row["contribution_amount"], row["due_date"], row["contribution_status"]
