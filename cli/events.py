"""`guthi events`: follow the feed of changes, and hold the records against their events."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer

from cli.client import ApiClient, open_api
from cli.database import owner_connection
from cli.output import JsonOption, plain, print_json, print_table
from db.queries import sql
from domain.replay import Difference, Replayed, replay

PAGE_ROWS = 1_000
AGAIN_SECONDS = 1.0

app = typer.Typer(help="The feed of changes.", invoke_without_command=True)


@app.callback()
def feed(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for what comes, until interrupted.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only what comes after this position.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, as the API gives it.")] = False,
) -> None:
    """Every change of the society's records, oldest first, a line each."""
    if context.invoked_subcommand is not None:
        return
    with open_api() as api:
        try:
            for event in _events(api, after, follow):
                print(orjson.dumps(event).decode() if as_json else _line(event), flush=True)
        except KeyboardInterrupt:
            raise typer.Abort from None


@app.command("replay")
def replay_all(as_json: JsonOption = False) -> None:
    """Rebuild every record of every society from its events and compare. Exit code 1: something differs.

    It connects by itself, with the owner's URL.
    """
    walked, differences = asyncio.run(_replay())
    if as_json:
        print_json({**asdict(walked), "differences": [asdict(each) for each in differences]})
    elif differences:
        header = ("TENANT", "WHAT", "ID", "FIELD", "EVENTS SAY", "THE ROW SAYS")
        print_table(header, [tuple(asdict(each).values()) for each in differences])
    else:
        print(f"{walked.aggregates:,} records are what their {walked.events:,} events say")
    if differences:
        raise typer.Exit(1)


async def _replay() -> tuple[Replayed, list[Difference]]:
    walked = Replayed()
    async with owner_connection() as connection:
        tenants = [row["tenant_id"] async for row in sql.tenant_ids(connection)]
        return walked, [each for tenant_id in tenants async for each in replay(connection, tenant_id, walked)]


def _events(api: ApiClient, after: int, follow: bool) -> Iterator[dict[str, Any]]:
    while True:
        page = api.get("/api/events", after=after, limit=PAGE_ROWS)
        yield from page["items"]
        after = page["next"]
        if len(page["items"]) < PAGE_ROWS:
            if not follow:
                return
            time.sleep(AGAIN_SECONDS)


def _line(event: dict[str, Any]) -> str:
    names = ("position", "createdAt", "eventType", "aggregateId", "version", "payload")
    return "\t".join(plain(event[name]) for name in names)
