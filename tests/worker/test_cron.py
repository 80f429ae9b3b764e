"""The cron table, and that each maintenance run is recorded."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from core.errors import UnavailableError
from jobs.engine.engine import Engine
from jobs.maintenance import MAINTENANCE, run_maintenance
from tests.cycles import tuned
from worker.cron import LONGEST_RUN_SECONDS, cron_jobs
from worker.presence import Presence


def runs_of(engine: Engine, name: str, start: datetime, times: int) -> list[datetime]:
    """When that entry of the table runs after `start`."""
    (job,) = [job for job in cron_jobs(engine, Presence(engine)) if job.name == f"cron:{name}"]
    at, runs = start, []
    for _ in range(times):
        job.calculate_next(at)
        assert job.next_run is not None
        runs.append(at := job.next_run)
    return [run.replace(microsecond=0) for run in runs]


NOON = datetime(2026, 3, 31, 12, 0, 30, tzinfo=UTC)


def test_the_table_holds_every_maintenance_job_once(engine: Engine) -> None:
    assert [job.name for job in cron_jobs(engine, Presence(engine))] == [f"cron:{name}" for name in MAINTENANCE]
    assert all(job.unique and not job.run_at_startup for job in cron_jobs(engine, Presence(engine)))
    assert all(job.timeout_s == LONGEST_RUN_SECONDS for job in cron_jobs(engine, Presence(engine)))


@pytest.mark.parametrize("every", [1, 2, 5, 30])
def test_sweep_runs_every_few_seconds(engine: Engine, every: int) -> None:
    runs = runs_of(tuned(engine, sweep_seconds=every), "sweep", NOON, 10)
    assert {later - sooner for sooner, later in pairwise(runs)} == {timedelta(seconds=every)}


def test_the_others_run_hourly_and_daily(engine: Engine) -> None:
    reconcile = runs_of(engine, "reconcile", NOON, 3)
    assert [(run.hour, run.minute, run.second) for run in reconcile] == [(12, 10, 0), (13, 10, 0), (14, 10, 0)]
    for name in ("make_partitions", "purge_idempotency_keys"):
        first, second = runs_of(engine, name, NOON, 2)
        assert (first.date().day, first.hour) == (1, 0)
        assert second - first == timedelta(days=1)


async def last_run(owner: asyncpg.Connection, name: str) -> asyncpg.Record:
    return await owner.fetchrow("SELECT * FROM maintenance_runs WHERE name = $1 ORDER BY run_id DESC LIMIT 1", name)


@pytest.mark.parametrize("name", MAINTENANCE)
async def test_each_run_is_recorded_with_start_end_and_result(
    engine: Engine, owner: asyncpg.Connection, society: Any, name: str
) -> None:
    result = await run_maintenance(engine, name)
    run = await last_run(owner, name)
    assert result is not None
    assert run["started_at"] <= run["ended_at"]
    assert run["result"] is not None
    assert run["error"] is None


@pytest.mark.parametrize("error", [ZeroDivisionError("planted"), UnavailableError("planted")])
async def test_a_run_that_fails_is_recorded_and_raises_nothing(
    engine: Engine, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def broken(_: Engine) -> dict[str, Any]:
        raise error

    monkeypatch.setitem(MAINTENANCE, "sweep", broken)
    assert await run_maintenance(engine, "sweep") is None
    run = await last_run(owner, "sweep")
    assert run["result"] is None
    assert "planted" in run["error"]


async def test_a_run_that_cannot_be_recorded_raises_nothing(
    engine: Engine, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is cut between the work and its record."""

    async def cut(_: Engine) -> dict[str, Any]:
        await owner.execute("ALTER TABLE maintenance_runs RENAME TO gone")
        await owner.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'terminating connection' USING ERRCODE = '57P01'; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON gone FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        await owner.execute("ALTER TABLE gone RENAME TO maintenance_runs")
        return {}

    monkeypatch.setitem(MAINTENANCE, "sweep", cut)
    await run_maintenance(engine, "sweep")
