"""`guthi events`: follow the feed of changes, and hold the records against their events."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli import following
from cli.client import ApiClient, open_api
from cli.database import owner_connection
from cli.following import end_with_reader
from cli.output import JsonLinesOption, JsonOption, print_json, print_json_line, print_line, print_table
from db.queries import sql
from domain.replay import Difference, Replayed, replay

PATH = "/api/events"
PAGE_ROWS = 1_000
NAMES = ("position", "createdAt", "eventType", "aggregateId", "version", "payload")

app = typer.Typer(help="The feed of changes.", invoke_without_command=True)


@app.callback()
def feed(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for what comes, until interrupted.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only what comes after this position.")] = 0,
    as_json: JsonLinesOption = False,
) -> None:
    """Every change of the society's records, oldest first, a line each.

    With --follow it outlives restarts of the API and lost connections, and tells each event once. Exit code 0: all
    are printed; 130: interrupted.
    """
    if context.invoked_subcommand is not None:
        return
    end_with_reader()
    with open_api() as api:
        reader = _Reader(api, after)
        for event in following.follow(api, reader.ask, reader.listen) if follow else reader.ask():
            if as_json:
                print_json_line(event)
            else:
                print_line(event[name] for name in NAMES)


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


class _Reader:
    """Where in the feed we are: each event is given once, by whichever way it comes first."""

    def __init__(self, api: ApiClient, after: int) -> None:
        self._api, self._after = api, after

    def ask(self) -> Iterator[dict[str, Any]]:
        while items := self._api.get(PATH, after=self._after, limit=PAGE_ROWS)["items"]:
            yield from map(self._pass, items)

    def listen(self) -> Iterator[dict[str, Any]]:
        for event in self._api.events(f"{PATH}/stream", after=self._after):
            if event.data["position"] > self._after:
                yield self._pass(event.data)

    def _pass(self, event: dict[str, Any]) -> dict[str, Any]:
        self._after = event["position"]
        return event
