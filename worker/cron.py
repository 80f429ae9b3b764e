"""Maintenance by the clock. Every worker offers each run to the queue; one of them gets it."""

from typing import Any

from arq.cron import CronJob, cron

from jobs.engine.bell import CRON
from jobs.engine.engine import Engine
from jobs.maintenance import MAINTENANCE, run_maintenance
from jobs.maintenance.schedule import schedules
from worker.presence import Presence

LONGEST_RUN_SECONDS = 600


def cron_jobs(engine: Engine, presence: Presence) -> list[CronJob]:
    """The cron table, as `jobs.maintenance.schedule` has it."""
    times = schedules(engine.settings)
    return [
        cron(_run(engine, presence, name), name=f"{CRON}{name}", timeout=LONGEST_RUN_SECONDS, **times[name].times)
        for name in MAINTENANCE
    ]


def _run(engine: Engine, presence: Presence, name: str) -> Any:
    async def run(_: dict[str, Any]) -> None:
        with presence.maintaining(name):
            await run_maintenance(engine, name)

    return run
