"""`guthi sequences`: do sequences and counters give free numbers? It connects by itself, with the owner's URL."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import asyncpg
import typer

from cli.counters import init_all
from cli.database import owner_connection
from cli.output import JsonOption, print_json, print_table
from core.errors import UnavailableError
from db.queries import sql

app = typer.Typer(help="Sequences and counters after imports and restores.", no_args_is_help=True)

_COLUMNS = ("kind", "name", "table_name", "column_name", "max_used", "next_value", "status")


@app.command()
def check(as_json: JsonOption = False) -> None:
    """Every sequence and counter with its next number. Exit code 1: one would give a number that is taken."""
    found = asyncio.run(_check())
    _print(found, as_json)
    if _broken(found):
        raise typer.Exit(1)


@app.command()
def repair(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this, only say what would be done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Move what is behind past the highest number in use, never back. Exit code 1: something is broken still.

    Writers of the table wait for the moment that takes.
    """
    found = asyncio.run(_repair(apply=apply))
    _print(found, as_json)
    if apply and any(each["now"] != "ok" for each in found):
        raise typer.Exit(1)


async def _check() -> list[dict[str, Any]]:
    async with owner_connection() as connection:
        return [dict(row) async for row in sql.check_sequence_health(connection)]


async def _repair(*, apply: bool) -> list[dict[str, Any]]:
    """What was broken, and what it is `now`."""
    broken = _broken(await _check())
    if apply:
        async with owner_connection() as connection:
            for each in broken:
                if each["kind"] == "sequence":
                    try:
                        await sql.repair_sequence(connection, name=each["name"])
                    except asyncpg.LockNotAvailableError:
                        raise UnavailableError(f"{each['table_name']} is being written to: try again") from None
        if any(each["kind"] == "counter" for each in broken):
            await init_all(dry_run=False)
    after = {each["name"]: each for each in await _check()} if broken else {}
    return [
        {**each, "next_value": after[each["name"]]["next_value"], "now": after[each["name"]]["status"]}
        for each in broken
    ]


def _broken(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in found if each["status"] != "ok"]


def _print(found: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    columns = [*_COLUMNS, *(["now"] if found and "now" in found[0] else [])]
    print_table(
        [column.replace("_", " ").upper() for column in columns], [[each[c] for c in columns] for each in found]
    )
