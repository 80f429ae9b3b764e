"""What `/metrics` says of the whole system: as fresh as the last sweep, from whichever process, and never older."""

import asyncpg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from core import metrics
from core.metrics import JOB_CHANGES, REGISTRY, Overview, collect_metrics
from jobs.engine.engine import Engine
from jobs.kinds import KINDS
from jobs.maintenance import MAINTENANCE, run_maintenance
from jobs.maintenance.sweep import WATCHED
from tests.cycles import start
from tests.support import Society


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def shown(overview: Overview) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(overview)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.fixture
def overview(monkeypatch: pytest.MonkeyPatch) -> Overview:
    """This test's own, fed by the events of this process."""
    overview = Overview()
    monkeypatch.setattr(metrics, "OVERVIEW", overview)
    monkeypatch.setattr("core.telemetry._subscribers", [metrics._count])
    return overview


def test_what_was_seen_disappears_unless_it_is_seen_again() -> None:
    clock = Clock()
    overview = Overview(clock)
    assert shown(overview) == {}
    overview.see({"queue_depth": 3, "broken_invariants": None, "jobs": {("a", "Failed"): 1}})
    clock.now += Overview.SHOWN_SECONDS
    assert shown(overview) == {"guthi_queue_depth": 3, 'guthi_jobs{kind="a",state="Failed"}': 1}
    clock.now += 1
    assert shown(overview) == {}
    overview.see({"queue_depth": 4})
    assert shown(overview) == {"guthi_queue_depth": 4}


async def test_a_sweep_shows_the_whole_system(
    engine: Engine, owner: asyncpg.Connection, society: Society, overview: Overview
) -> None:
    await start(engine, society)
    await owner.execute("UPDATE batch_jobs SET updated_at = now() - interval '1 hour'")  # the trigger says otherwise
    await run_maintenance(engine, "sweep")
    seen = shown(overview)
    assert seen['guthi_jobs{kind="create_contributions",state="Queued"}'] == 1
    assert seen['guthi_jobs{kind="create_contributions",state="Failed"}'] == 0
    assert seen["guthi_queue_depth"] == 1
    assert 0 <= seen["guthi_oldest_unfinished_job_seconds"] < 60  # since its last change, of whatever age it is
    assert "guthi_broken_invariants" not in seen and "guthi_broken_sequences" not in seen  # nobody has checked yet
    assert not [name for name in seen if name.startswith("guthi_maintenance_age_seconds")]
    assert seen["guthi_outbox_lag_seconds"] > 0
    await run_maintenance(engine, "relay_events")
    await run_maintenance(engine, "sweep")
    assert shown(overview)["guthi_outbox_lag_seconds"] == 0


async def test_what_a_check_found_outlives_the_process_that_found_it(
    engine: Engine, owner: asyncpg.Connection, society: Society, overview: Overview
) -> None:
    await owner.execute("UPDATE counters SET value = value + 1")
    await owner.execute("DELETE FROM events")
    for name in ("reconcile", "check_sequences"):
        await run_maintenance(engine, name)
    overview.see({})  # as in another process
    await run_maintenance(engine, "sweep")
    found = shown(overview)
    assert found["guthi_broken_invariants"] >= 1
    assert found['guthi_maintenance_age_seconds{name="reconcile"}'] < 60


async def test_a_job_that_never_succeeded_is_as_old_as_its_first_try(
    engine: Engine, owner: asyncpg.Connection, overview: Overview
) -> None:
    await owner.execute(
        "INSERT INTO maintenance_runs (name, started_at, ended_at, result, error)"
        " SELECT name, now() - age, now() - age, result, error FROM (VALUES"
        " ('reconcile', interval '5 hours', NULL::jsonb, 'broke'), ('reconcile', interval '1 hour', NULL, 'broke'),"
        " ('chain_audit', interval '3 hours', '{}', NULL), ('chain_audit', interval '2 hours', '{}', NULL),"
        " ('chain_audit', interval '1 hour', NULL, 'broke')) AS runs (name, age, result, error)"
    )
    await run_maintenance(engine, "sweep")
    seen = shown(overview)
    age = 'guthi_maintenance_age_seconds{name="%s"}'
    hours = {name: round(seen[age % name] / 3_600) for name in ("reconcile", "chain_audit")}
    assert hours == {"reconcile": 5, "chain_audit": 2}
    assert "guthi_broken_invariants" not in seen


def test_every_maintenance_job_is_watched() -> None:
    assert {*WATCHED, "sweep", "relay_events"} == set(MAINTENANCE)


def test_counters_of_every_kind_begin_at_nought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.telemetry._subscribers", [])
    collect_metrics(kind.name for kind in KINDS)
    there = {(sample.labels["kind"], sample.labels["state"]) for m in JOB_CHANGES.collect() for sample in m.samples}
    assert {("create_contributions", "Failed"), ("import_members", "Failed")} <= there
    for retriable in ("true", "false"):
        assert REGISTRY.get_sample_value("guthi_attempts_failed_total", {"retriable": retriable}) is not None
