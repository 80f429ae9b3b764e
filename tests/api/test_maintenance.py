"""Maintenance over HTTP: what runs when, how it went, and one's own run of it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest

from jobs.engine.engine import Engine
from jobs.maintenance import MAINTENANCE, run_maintenance
from tests.api.expect import refused, unchanged
from tests.support import Society, eventually

RUN = {"runId", "startedAt", "completedAt", "seconds", "result", "error", "requestedBy"}


async def shown(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    items = (await client.get("/api/maintenance")).json()["items"]
    found: dict[str, Any] = next(item for item in items if item["name"] == name)
    return found


async def test_everything_is_listed_with_its_schedule_and_last_run(client: httpx.AsyncClient, engine: Engine) -> None:
    items = (await client.get("/api/maintenance")).json()["items"]
    assert {item["name"] for item in items} == set(MAINTENANCE)
    assert all(item["lastRun"] is None and not item["running"] and item["description"] for item in items)
    assert {item["name"]: item["schedule"] for item in items}.items() >= {
        ("sweep", "every 2 seconds"),
        ("make_partitions", "daily at 00:05 UTC"),
        ("reconcile", "hourly, 10 minutes past"),
        ("chain_audit", "every minute"),
    }
    for item in items:
        assert datetime.fromisoformat(item["nextRunAt"]) > datetime.now(UTC).replace(microsecond=0)
    await run_maintenance(engine, "reconcile")
    last = (await shown(client, "reconcile"))["lastRun"]
    assert set(last) == RUN
    assert (last["result"], last["error"], last["requestedBy"]) == ({"tenants": 1, "broken": 0}, None, None)


async def test_a_run_by_hand_is_answered_and_recorded(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, society: Society
) -> None:
    run = (await client.post("/api/maintenance/purge_job_samples/run")).json()
    assert (run["result"], run["error"], run["requestedBy"]) == ({"purged": 0}, None, str(society.user_id))
    assert (await shown(client, "purge_job_samples"))["lastRun"] == run
    (theirs,) = (await stranger.get("/api/maintenance/purge_job_samples/runs")).json()["items"]
    assert theirs == {**run, "requestedBy": None}


async def test_runs_are_paged_newest_first(client: httpx.AsyncClient) -> None:
    made = [(await client.post("/api/maintenance/make_partitions/run")).json()["runId"] for _ in range(3)]
    seen, after = [], None
    while True:
        query = {"limit": 1, **({"after": after} if after else {})}
        page = (await client.get("/api/maintenance/make_partitions/runs", params=query)).json()
        seen += [run["runId"] for run in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == made[::-1]


async def test_one_run_by_hand_at_a_time(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, owner: asyncpg.Connection
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(_: Engine) -> dict[str, Any]:
        begun.set()
        await ended.wait()
        return {}

    monkeypatch.setitem(MAINTENANCE, "reconcile", slow)
    first = asyncio.create_task(client.post("/api/maintenance/reconcile/run"))
    await begun.wait()
    assert (await shown(client, "reconcile"))["running"]
    async with unchanged(owner):
        refused(await client.post("/api/maintenance/reconcile/run"), 409, "MAINTENANCE_RUNNING")
    assert (await client.post("/api/maintenance/make_partitions/run")).status_code == 200
    ended.set()
    assert (await first).status_code == 200
    assert not (await shown(client, "reconcile"))["running"]
    assert (await client.post("/api/maintenance/reconcile/run")).status_code == 200


async def test_a_failed_run_is_told_without_anybodys_ids(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, other: Society
) -> None:
    async def broken(_: Engine) -> dict[str, Any]:
        raise ZeroDivisionError(f"in {other.tenant_id}")

    monkeypatch.setitem(MAINTENANCE, "reconcile", broken)
    run = (await client.post("/api/maintenance/reconcile/run")).json()
    assert (run["result"], run["error"]) == (None, "ZeroDivisionError('in …')")
    assert (await shown(client, "reconcile"))["lastRun"] == run


async def test_an_unknown_name_is_not_found(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    async with unchanged(owner):
        for name in ("nothing", "Sweep", "sweep ", "%00", "..%2Fsweep"):
            answer = await client.post(f"/api/maintenance/{name}/run")
            assert answer.status_code == 404 and answer.json()["code"].endswith("_NOT_FOUND"), name
        refused(await client.get("/api/maintenance/nothing/runs"), 404, "MAINTENANCE_NOT_FOUND")


async def test_old_samples_are_forgotten(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    await owner.execute(
        "INSERT INTO batch_job_samples (tenant_id, job_id, at, shard_no, processed)"
        " SELECT $1, uuidv7(), now() - age, 0, 1 FROM unnest(ARRAY['89 days', '91 days']::interval[]) AS age",
        society.tenant_id,
    )
    assert (await client.post("/api/maintenance/purge_job_samples/run")).json()["result"] == {"purged": 1}

    async def left() -> Any:
        return await owner.fetchval("SELECT count(*) FROM batch_job_samples")

    await eventually(left, lambda number: number == 1)
