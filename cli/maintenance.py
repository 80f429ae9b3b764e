"""`guthi maintenance`: what cron triggers, run by hand. It connects by itself, as the app's role."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from cli.output import JsonOption, plain, print_fields, print_json
from core.errors import InvalidInputError
from core.settings import Settings, load_settings
from core.telemetry import subscribe
from db.database import Database
from jobs.engine.bell import connect_redis
from jobs.kinds import build_engine
from jobs.maintenance import MAINTENANCE, run_maintenance

app = typer.Typer(help="What cron triggers, run by hand.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `run` a sub-command while it is the only one."""


@app.command()
def run(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(MAINTENANCE)}.")],
    as_json: JsonOption = False,
) -> None:
    """Run one of them now and record it as cron would. Exit code 1: it failed."""
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
