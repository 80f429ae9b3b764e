"""Alive, ready, measured; and what callers are told while PostgreSQL is away or busy."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from api.app import create_app
from core.settings import Settings
from tests.api.conftest import client_of
from tests.api.expect import refused
from tests.conftest import Servers
from tests.support import Society, make_society


async def test_health_needs_no_key(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    assert (await client.get("/livez")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"postgres": "ok", "redis": "ok"}
    metrics = await client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for name in ("guthi_jobs", "guthi_requests_failed_total", "guthi_queue_depth", "guthi_batch_seconds"):
        assert name in metrics.text


async def test_while_postgresql_is_away_it_lives_but_is_not_ready(own_servers: Servers) -> None:
    owner = await asyncpg.connect(own_servers.postgres.admin_url)
    society = await make_society(owner, members=1)
    await owner.close()
    settings = Settings(
        _env_file=None,
        database_url=own_servers.postgres.app_url,
        redis_url=own_servers.valkey.url,
        database_pool_wait_seconds=1,
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app, society.api_key) as client:
        assert (await client.get("/api/tiers")).status_code == 200
        own_servers.postgres.stop("immediate")
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["postgres"], ready.headers["retry-after"]) == (503, "away", "1")
        for _ in range(3):  # the first meets a cut session, the others no server
            answer = await client.get("/api/tiers")
            refused(answer, 503, "DATABASE_ERROR")
            assert answer.headers["retry-after"] == "1"
        own_servers.postgres.start()
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/api/tiers")).status_code == 200


@pytest.fixture
async def crowded(settings: Settings, society: Society) -> AsyncIterator[httpx.AsyncClient]:
    """An API with two connections."""
    app = create_app(settings.model_copy(update={"database_pool_size": 2, "database_pool_wait_seconds": 0.1}))
    async with app.router.lifespan_context(app), client_of(app, society.api_key) as client:
        yield client


async def test_an_exhausted_pool_is_503_and_passes(
    crowded: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    agent = {"code": "AG1", "name": "waits for the row that another transaction is about to insert"}
    async with owner.transaction():
        await owner.execute("LOCK TABLE agents IN EXCLUSIVE MODE")
        waiting = [asyncio.create_task(crowded.post("/api/agents", json={**agent, "code": c})) for c in ("X1", "X2")]
        done: set[asyncio.Task[httpx.Response]] = set()
        answer = await crowded.get("/api/tiers")
        while answer.status_code != 503:  # the two may need a moment to take the connections
            answer = await crowded.get("/api/tiers")
        refused(answer, 503, "DATABASE_ERROR")
        assert answer.headers["retry-after"] == "1"
        done, _ = await asyncio.wait(waiting, timeout=0.01)
        assert not done
    assert [(await task).status_code for task in waiting] == [201, 201]
    assert (await crowded.get("/api/tiers")).status_code == 200
