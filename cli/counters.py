"""`guthi counters`: numbers after data was brought from elsewhere. It connects by itself, with the owner's URL."""

import asyncio
from typing import Annotated, Any

import typer

from cli.database import owner_connection
from cli.output import JsonOption, print_json, print_table
from db.queries import sql
from domain.counters import init_counters

app = typer.Typer(help="Counters of member numbers and cycle codes.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `init` a sub-command while it is the only one."""


@app.command()
def init(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Set each counter to the highest number in use, in every society; those that are right stay as they are.

    No counter moves back. Safe to run twice, and beside live traffic.
    """
    counters = asyncio.run(init_all(dry_run=dry_run))
    if as_json:
        print_json(counters)
        return
    done = {True: "would be set" if dry_run else "set", False: "right already"}
    header = ("TENANT", "COUNTER", "IN USE", "WAS", "IS", "SKIPPED", "DONE")
    names = ("tenant_id", "name", "used", "old_value", "value", "skipped")
    print_table(header, ([*(each[name] for name in names), done[each["changed"]]] for each in counters))


async def init_all(*, dry_run: bool) -> list[dict[str, Any]]:
    async with owner_connection() as connection:
        tenants = [row["tenant_id"] async for row in sql.tenant_ids(connection)]
        return [
            {"tenant_id": tenant_id, **row}
            for tenant_id in tenants
            for row in await init_counters(connection, tenant_id, dry_run=dry_run)
        ]
