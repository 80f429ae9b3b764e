"""`guthi maintenance`: what cron triggers: seen, and run by hand."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from cli.client import open_api
from cli.completion import maintenance_names
from cli.output import JsonOption, plain, print_fields, print_json, print_table
from core.errors import InvalidInputError
from core.settings import Settings, load_settings
from core.telemetry import subscribe
from db.database import Database
from jobs.engine.bell import connect_redis
from jobs.kinds import build_engine
from jobs.maintenance import MAINTENANCE, run_maintenance

PATH = "/api/maintenance"

app = typer.Typer(help="What cron triggers: seen, and run by hand.", no_args_is_help=True)


@app.command("list")
def list_maintenance(as_json: JsonOption = False) -> None:
    """What there is, when it runs, and how the last run ended. It asks the API."""
    with open_api() as api:
        items = api.get(PATH)["items"]
    if as_json:
        print_json(items)
        return
    rows = ((item["name"], item["schedule"], item["nextRunAt"], item["running"], *_last(item)) for item in items)
    print_table(("NAME", "SCHEDULE", "NEXT RUN", "RUNS NOW", "LAST RUN", "SECONDS", "RESULT"), rows)


def _last(item: dict[str, Any]) -> tuple[Any, ...]:
    if (last := item["lastRun"]) is None:
        return (None, None, "never ran")
    result = ", ".join(f"{name}: {value}" for name, value in (last["result"] or {}).items())
    return (last["startedAt"], last["seconds"], f"failed: {last['error']}" if last["error"] else result)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(MAINTENANCE)}.", autocompletion=maintenance_names)],
    as_json: JsonOption = False,
) -> None:
    """Run one of them now and record it as cron would. Exit code 1: it failed.

    It connects by itself, as the app's role.
    """
    if name not in MAINTENANCE:
        raise InvalidInputError(f"there is no maintenance {name}; there are {', '.join(MAINTENANCE)}")
    told = _Told()
    subscribe(told)
    result = asyncio.run(_run(load_settings(), name))
    if result is None:
        print(f"guthi: {name} failed: {told.failure}", file=sys.stderr)
        raise typer.Exit(1)
    (print_json if as_json else print_fields)(result)


async def _run(settings: Settings, name: str) -> dict[str, Any] | None:
    database, redis = await Database.connect(settings), connect_redis(settings)
    engine = build_engine(settings, database, redis)
    try:
        return await run_maintenance(engine, name)
    finally:
        await engine.progress.close()
        await redis.aclose(close_connection_pool=True)
        await database.close()


class _Told:
    """Hears what a worker would log: why the run failed first, and what it found broken."""

    failure = ""

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        if event == "maintenance_failed":
            self.failure = self.failure or plain(fields["error"])
        elif event == "invariant_broken":
            found = (fields[name] for name in ("invariant", "tenant_id", "subject", "detail"))
            print(f"guthi: broken: {plain(', '.join(map(str, found)))}", file=sys.stderr)
