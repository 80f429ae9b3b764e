"""Progress, polled and streamed: from Redis, from PostgreSQL when Redis has nothing or is away."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.progress import SHORTEST_GAP_SECONDS, ProgressTopic
from core.settings import Settings
from db.queries import sql
from domain.api_keys import Caller
from domain.roles import Permission
from jobs.engine.engine import Engine
from jobs.engine.model import Job
from jobs.engine.progress import ShardProgress
from jobs.engine.runner import run_job
from tests.api.conftest import Start, client_of
from tests.api.expect import start_of
from tests.conftest import Servers
from tests.cycles import steer, tuned
from tests.support import Society, eventually, make_society


def shown(status: str, total: int, processed: int, percentage: int, left: int | None) -> dict[str, Any]:
    return {
        "status": status,
        "progress": {"total": total, "processed": processed, "percentage": percentage},
        "estimatedTimeRemaining": left,
    }


QUEUED, ACTIVE = shown("Initializing", 0, 0, 0, None), shown("Active", 100, 100, 100, 0)


async def progress(client: httpx.AsyncClient, cycle: dict[str, Any]) -> dict[str, Any]:
    answer = await client.get(f"/api/contribution-cycles/{cycle['cycleId']}/creation-progress")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found.pop("cycleId") == cycle["cycleId"]
    return found


async def run(engine: Engine, society: Society, cycle: dict[str, Any]) -> None:
    await run_job(engine, society.tenant_id, UUID(cycle["jobId"]))


async def test_progress_from_start_to_end(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    assert await progress(client, cycle) == QUEUED
    await run(engine, society, cycle)
    assert await eventually(lambda: progress(client, cycle), lambda now: now["status"] == "Active") == ACTIVE


async def test_a_flushed_redis_changes_no_answer(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    for wanted in (QUEUED, ACTIVE):
        await eventually(lambda: progress(client, cycle), lambda now, wanted=wanted: now == wanted)
        await engine.bell._redis.flushall()
        assert await progress(client, cycle) == wanted
        await run(engine, society, cycle)


@pytest.mark.parametrize(("verb", "status"), [("pause", "Initializing"), ("cancel", "Cancelled")])
async def test_what_an_operator_did_while_redis_was_away_shows_within_seconds(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society, verb: str, status: str
) -> None:
    """A paused job's entry must not outlive a change that Redis never heard of."""
    cycle = (await start(strategy="queued")).json()
    job_id = UUID(cycle["jobId"])
    await steer(engine, society, "pause", job_id)
    key = f"guthi:progress:{society.tenant_id}:create_contributions:{cycle['cycleId']}"
    assert await engine.bell._redis.ttl(key) <= 3
    await steer(engine, society, "resume", job_id)
    await steer(engine, society, verb, job_id)
    assert (await progress(client, cycle))["status"] == status


async def test_an_unchanged_answer_is_304(client: httpx.AsyncClient, start: Start) -> None:
    path = f"/api/contribution-cycles/{(await start()).json()['cycleId']}/creation-progress"
    tag = (await client.get(path)).headers["etag"]
    for sent in (tag, f'W/{tag}, "other"', "*"):
        again = await client.get(path, headers={"If-None-Match": sent})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.fixture
async def far(own_servers: Servers) -> AsyncIterator[tuple[FastAPI, Society]]:
    """An app whose Redis may be stopped."""
    owner = await asyncpg.connect(own_servers.postgres.admin_url)
    society = await make_society(owner, members=100)
    await owner.close()
    settings = Settings(
        _env_file=None, database_url=own_servers.postgres.app_url, redis_url=own_servers.valkey.url, inline_below=0
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app, society


async def test_without_redis_everything_is_answered_from_postgresql(
    far: tuple[FastAPI, Society], own_servers: Servers
) -> None:
    app, society = far
    async with client_of(app, society.api_key) as client:
        own_servers.valkey.stop()
        key = {"Idempotency-Key": "1"}
        answer = await client.post("/api/contribution-cycles", json=start_of(society), headers=key)
        cycle = answer.json()
        assert answer.status_code == 202
        assert await progress(client, cycle) == QUEUED
        assert (await client.get("/readyz")).json() == {"postgres": "ok", "redis": "away"}
        job = (await client.get(f"/api/jobs/{cycle['jobId']}")).json()
        assert job["state"] == "Queued"
        stream = f"/api/contribution-cycles/{cycle['cycleId']}/creation-progress/stream"
        watching = asyncio.create_task(client.get(stream))
        await run(app.state.engine, society, cycle)
        events = [json.loads(line[6:]) for line in (await watching).text.splitlines() if line.startswith("data: ")]
        assert events[-1] == {"cycleId": cycle["cycleId"], **ACTIVE}
        own_servers.valkey.start()
        assert await progress(client, cycle) == ACTIVE


class Watcher:
    """Reads a stream as a browser does: the events and when each came."""

    def __init__(self, url: str, key: str, cycle: dict[str, Any]) -> None:
        self.events: list[tuple[float, dict[str, Any]]] = []
        self._url = f"{url}/api/contribution-cycles/{cycle['cycleId']}/creation-progress/stream"
        self._headers = {"Authorization": f"Bearer {key}"}

    async def watch(self) -> "Watcher":
        now = asyncio.get_running_loop().time
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("GET", self._url, headers=self._headers) as answer,
            aclosing(answer.aiter_lines()) as lines,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in lines:
                if line.startswith("data: "):
                    self.events.append((now(), json.loads(line[6:])))
        return self

    async def saw(self) -> bool:
        return bool(self.events)

    def last(self) -> dict[str, Any]:
        return self.events[-1][1]


async def test_a_stream_begins_with_the_present_state_and_ends_with_the_last(
    server_url: str, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    slow = tuned(engine, batch_rows=5)
    watchers = [Watcher(server_url, society.api_key, cycle) for _ in range(20)]
    tasks = [asyncio.create_task(watcher.watch()) for watcher in watchers]
    for watcher in watchers:
        await eventually(watcher.saw)
        assert watcher.events[0][1] == {"cycleId": cycle["cycleId"], **QUEUED}
    await run(slow, society, cycle)
    for watcher in await asyncio.gather(*tasks):
        processed = [event["progress"]["processed"] for _, event in watcher.events]
        assert processed == sorted(processed)
        assert watcher.last() == {"cycleId": cycle["cycleId"], **ACTIVE}
    late = await Watcher(server_url, society.api_key, cycle).watch()
    assert [event for _, event in late.events] == [{"cycleId": cycle["cycleId"], **ACTIVE}]


async def test_a_stream_goes_on_when_redis_is_flushed_and_ends_when_the_job_fails(
    server_url: str, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    watcher = Watcher(server_url, society.api_key, cycle)
    watching = asyncio.create_task(watcher.watch())
    await eventually(watcher.saw)
    await engine.bell._redis.flushall()
    await run(tuned(engine, faults="in_batch=error"), society, cycle)
    await watching
    assert watcher.last()["status"] == "Failed"


async def test_a_stream_has_at_most_ten_events_a_second(
    app: FastAPI, engine: Engine, start: Start, society: Society
) -> None:
    """Every change is told at once, many times faster than that; the watcher is given some of them."""
    cycle = (await start(strategy="queued")).json()
    cycle_id = UUID(cycle["cycleId"])
    feeds, gate = app.state.feeds, app.state.gate
    topic = ProgressTopic(engine, society.tenant_id, cycle_id)
    caller = Caller(society.tenant_id, society.user_id, "admin", UUID(int=0))
    times: list[float] = []
    seen: list[int] = []

    async def watch() -> None:
        async with feeds.watch(topic) as watcher:
            async for news in gate.news(watcher, caller, Permission.VIEW, topic.gap):
                times.append(asyncio.get_running_loop().time())
                seen.append(news.progress.progress.processed)
                if news.progress.status != "Initializing":
                    return

    watching = asyncio.create_task(watch())
    row = {"tenant_id": society.tenant_id, "job_id": UUID(cycle["jobId"])}
    async with engine.database.transaction(society.tenant_id) as tx:
        job = Job.from_row(await sql.get_job(tx.connection, **row))
    for processed in range(200):
        await engine.progress.write(job, 1, ShardProgress(0, processed // 2))
        await asyncio.sleep(0.003)
    await eventually(lambda: asyncio.sleep(0, len(seen)), lambda n: n >= 4)
    await run(engine, society, cycle)
    await watching
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= SHORTEST_GAP_SECONDS * 0.95
    assert seen == sorted(seen)


async def test_who_leaves_is_forgotten(app: FastAPI, server_url: str, start: Start, society: Society) -> None:
    cycle = (await start(strategy="queued")).json()
    watcher = Watcher(server_url, society.api_key, cycle)
    watching = asyncio.create_task(watcher.watch())
    await eventually(watcher.saw)
    feeds = app.state.feeds
    await eventually(lambda: asyncio.sleep(0, len(feeds._readers)), lambda n: n == 1)
    watching.cancel()
    await asyncio.wait([watching])
    await eventually(lambda: asyncio.sleep(0, len(feeds._readers)), lambda n: n == 0)
    assert not feeds._hints
