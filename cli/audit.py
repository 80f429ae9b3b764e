"""`guthi audit`: is the audit log what was written? Asks PostgreSQL itself, as the owner."""

import asyncio
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import orjson
import typer

from cli.database import owner_connection
from cli.output import print_json
from core.errors import InvalidInputError
from db.database import Connection
from db.queries import sql
from jobs.invariants import AUDIT, Broken, broken_invariants

app = typer.Typer(help="The log of every change.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `verify` a sub-command while it is the only one."""


@app.command()
def verify(
    against: Annotated[
        Path | None, typer.Option(help="What --json printed earlier: those ends must still stand in their chains.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what is broken, and the chains' ends to keep.")
    ] = False,
) -> None:
    """Check every chain of the audit log; exit code 1 when an entry was changed, taken out or put in.

    A superuser could make all chains anew: keep the ends that --json prints where they cannot reach, and
    give them back with --against.
    """
    known = _read_ends(against) if against else []
    broken, ends = asyncio.run(_verify(known))
    if as_json:
        print_json({"broken": [asdict(each) for each in broken], "ends": ends})
    elif not broken:
        entries = sum(end["position"] for end in ends)
        print(f"the audit log holds: {entries} entries in {len(ends)} chains")
    else:
        for each in broken:
            print(f"tenant {each.tenant_id}, {each.subject}: {each.detail}")
    if broken:
        raise typer.Exit(1)


async def _verify(known: list[dict[str, Any]]) -> tuple[list[Broken], list[dict[str, Any]]]:
    async with owner_connection() as connection:
        broken = await broken_invariants(connection, names=(AUDIT,))
        broken += [lost for end in known if (lost := await _lost(connection, end))]
        ends = [dict(row) async for row in sql.audit_heads(connection)]
    return broken, ends


async def _lost(connection: Connection, end: dict[str, Any]) -> Broken | None:
    tenant_id, month, position = UUID(end["tenant_id"]), date.fromisoformat(end["month"]), int(end["position"])
    stands = await sql.audit_hash_at(connection, tenant_id=tenant_id, month=month, position=position)
    if stands == end["hash"]:
        return None
    detail = "the entry does not have the hash that it once had: its chain was made anew, or is gone"
    return Broken(AUDIT, tenant_id, f"audit log {month:%Y-%m}, position {position}", detail)


def _read_ends(path: Path) -> list[dict[str, Any]]:
    try:
        ends: list[dict[str, Any]] = orjson.loads(path.read_bytes())["ends"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} is not what 'guthi audit verify --json' printed: {error}") from error
    return ends
