"""Workers as operators see them: there, busy, gone."""

import signal
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from jobs.engine import presence
from tests.api.conftest import Start
from tests.cycles import slow_batches
from tests.support import Society, Worker, eventually

FIELDS = {
    *("workerId", "name", "host", "pid", "startedAt", "seenAt", "concurrency", "busy", "running"),
}


async def workers(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/api/workers")).json()
    return found


async def test_a_worker_appears_is_shown_busy_and_is_gone_after_its_death(
    client: httpx.AsyncClient,
    stranger: httpx.AsyncClient,
    start: Start,
    owner: asyncpg.Connection,
    start_worker: Callable[..., Worker],
    society: Society,
) -> None:
    assert await workers(client) == {"items": [], "queueDepth": 0, "pickupSeconds": None, "redis": "ok"}
    await slow_batches(owner, 0.5)
    cycle = (await start(strategy="queued")).json()
    worker = start_worker(GUTHI_BATCH_ROWS=1, GUTHI_WORKER_NAME="worker-1", GUTHI_WORKER_CONCURRENCY=3)
    shown = await eventually(lambda: workers(client), lambda now: now["items"] and now["items"][0]["running"])
    (item,) = shown["items"]
    assert set(item) == FIELDS
    assert (item["name"], item["pid"], item["concurrency"]) == ("worker-1", worker.pid, 3)
    assert 1 <= item["busy"] <= 3
    (running,) = item["running"]
    assert running.pop("since")
    assert running == {
        "jobId": cycle["jobId"],
        "kind": "create_contributions",
        "subjectCode": cycle["cycleCode"],
        "shardNo": 0,
    }
    assert shown["pickupSeconds"]["p95"] >= shown["pickupSeconds"]["median"] >= 0
    (seen,) = (await workers(stranger))["items"]
    assert (seen["running"], seen["busy"] >= 1) == ([], True)
    (shard,) = (await client.get(f"/api/jobs/{cycle['jobId']}")).json()["shards"]
    assert shard["leaseHolder"] == "worker-1"
    worker.send(signal.SIGKILL)
    await worker.ended()
    await eventually(lambda: workers(client), lambda now: now["items"] == [], seconds=presence.FORGET_SECONDS + 5)


async def test_a_worker_that_is_asked_to_stop_says_goodbye(
    client: httpx.AsyncClient, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker()
    (item,) = (await eventually(lambda: workers(client), lambda now: now["items"]))["items"]
    assert item["name"] == f"{item['host']}:{worker.pid}"
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    assert (await workers(client))["items"] == []


async def test_without_redis_that_is_said(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any) -> None:
        raise ConnectionError("planted")

    app = client._transport.app  # type: ignore[attr-defined]
    monkeypatch.setattr(app.state.engine.presence._redis, "smembers", away)
    assert await workers(client) == {"items": [], "queueDepth": None, "pickupSeconds": None, "redis": "away"}
