"""The commands that speak to PostgreSQL itself, as the owner: `guthi migrate` and `guthi doctor`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

import asyncpg
import typer

from cli.output import print_json
from core.errors import UnavailableError
from core.settings import load_settings
from db.migrate import migrate as run_migrations
from jobs.invariants import AUDIT, INVARIANTS, Broken, broken_invariants, broken_sequences


@asynccontextmanager
async def owner_connection() -> AsyncIterator[asyncpg.Connection]:
    """One connection to `GUTHI_ADMIN_DATABASE_URL`; raises `UnavailableError` when it cannot be had."""
    settings = load_settings()
    settings.require("admin_database_url")
    try:
        connection = await asyncpg.connect(settings.admin_database_url, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise UnavailableError(f"PostgreSQL at GUTHI_ADMIN_DATABASE_URL cannot be reached: {error}") from error
    try:
        yield connection
    finally:
        await connection.close()


def migrate() -> None:
    """Bring the database to the newest schema; does nothing when it is there."""
    settings = load_settings()
    settings.require("admin_database_url")
    run_migrations(settings.admin_database_url)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False) -> None:
    """Check every invariant, and that every sequence gives free numbers; exit code 1 when one is broken."""
    broken = asyncio.run(_broken())
    if as_json:
        print_json([asdict(each) for each in broken])
    elif not broken:
        print("all invariants hold")
    else:
        for each in broken:
            whose = f"tenant {each.tenant_id}, " if each.tenant_id else ""
            print(f"{each.invariant}: {whose}{each.subject}: {each.detail}")
    if broken:
        raise typer.Exit(1)


async def _broken() -> list[Broken]:
    async with owner_connection() as connection:
        audited = await broken_invariants(connection, names=(*INVARIANTS, AUDIT))
        return audited + await broken_sequences(connection)
