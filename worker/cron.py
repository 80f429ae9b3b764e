"""When maintenance runs, in UTC. Every worker offers each run to the queue; one of them gets it."""

from typing import Any

from arq.cron import CronJob, cron

from jobs.engine.engine import Engine
from jobs.maintenance import MAINTENANCE, run_maintenance

LONGEST_RUN_SECONDS = 600


def cron_jobs(engine: Engine) -> list[CronJob]:
    """The cron table. arq's cron does not catch up, so each job does whatever is due and not one period's share."""
    often = {"second": set(range(0, 60, engine.settings.sweep_seconds))}
    times: dict[str, dict[str, Any]] = {
        "sweep": often,
        "relay_events": often,
        "make_partitions": {"hour": 0, "minute": 5},
        "reconcile": {"minute": 10},
        "purge": {"hour": 0, "minute": 20},
        "check_sequences": {"hour": 0, "minute": 30},
        "chain_audit": {"second": 15},
    }
    return [
        cron(_run(engine, name), name=f"cron:{name}", timeout=LONGEST_RUN_SECONDS, **times[name])
        for name in MAINTENANCE
    ]


def _run(engine: Engine, name: str) -> Any:
    async def run(_: dict[str, Any]) -> None:
        await run_maintenance(engine, name)

    return run
