"""Jobs as server-sent events: all unfinished ones, or one with its log."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api import streams
from api.app import create_app
from api.feeds import Watcher
from api.job_streams import GAP_SECONDS, JobsNews
from api.streams import MOST_ITEMS, Item, Items
from core.settings import Settings
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from tests.api.conftest import Start, served
from tests.api.expect import UNKNOWN, refused
from tests.api.sse import streamed
from tests.conftest import Servers
from tests.cycles import tuned
from tests.support import Society, eventually, make_society

SUMMARY = {
    *("jobId", "kind", "subjectId", "subjectCode", "state", "processed", "total", "percentage", "rate"),
    *("estimatedTimeRemaining", "createdBy", "createdByName", "createdAt", "startedAt", "shards", "allowed", "error"),
}


def holds(job_id: str, state: str) -> Callable[[Any], bool]:
    return lambda data: any((job["jobId"], job["state"]) == (job_id, state) for job in data["items"])


async def test_all_jobs_are_followed_from_start_to_end(
    server_url: str, start: Start, engine: Engine, client: httpx.AsyncClient, society: Society
) -> None:
    waiting = (await start(strategy="queued")).json()["jobId"]
    async with streamed(server_url, "/api/jobs/stream", society.api_key) as stream:
        await stream.saw(holds(waiting, "Queued"))
        new = (await start(strategy="queued")).json()["jobId"]
        first = await stream.saw(holds(new, "Queued"))
        assert [set(job) for job in first["items"]] == [SUMMARY] * 2
        assert set(first["items"][0]["shards"][0]) == {"shardNo", "processed", "done", "leased", "leaseHolder"}
        await run_job(engine, society.tenant_id, UUID(new))
        await stream.saw(holds(new, "Completed"))
        await client.post(f"/api/jobs/{waiting}/pause")
        last = await stream.saw(holds(waiting, "Paused"))
        assert [job["kind"] for job in last["items"]] == ["create_contributions", "notify_agents_new_cycle"]
    ends = [job for data in stream.named("jobs") for job in data["items"] if job["state"] == "Completed"]
    assert [job["jobId"] for job in ends] == [new]  # once
    assert all(any(job["jobId"] == waiting for job in data["items"]) for data in stream.named("jobs"))


async def test_an_end_is_told_once_also_of_a_job_that_nobody_saw_while_it_ran(
    server_url: str, start: Start, society: Society
) -> None:
    before = (await start(strategy="inline")).json()["jobId"]
    async with streamed(server_url, "/api/jobs/stream", society.api_key) as stream:
        await stream.saw(bool)
        unseen = (await start(strategy="inline")).json()["jobId"]
        await stream.saw(holds(unseen, "Completed"))
        later = (await start(strategy="queued")).json()["jobId"]
        await stream.saw(holds(later, "Queued"))
    ends = [job["jobId"] for data in stream.named("jobs") for job in data["items"] if job["state"] == "Completed"]
    assert ends == [unseen], f"{before} ended before anybody watched"


async def test_an_empty_list_is_told_too(server_url: str, society: Society) -> None:
    async with streamed(server_url, "/api/jobs/stream", society.api_key) as stream:
        assert await stream.saw(bool) == {"items": []}


async def test_many_changes_are_told_four_times_a_second(
    server_url: str, start: Start, client: httpx.AsyncClient, society: Society
) -> None:
    job_id = (await start(strategy="queued")).json()["jobId"]
    async with streamed(server_url, "/api/jobs/stream", society.api_key) as stream:
        await stream.saw(holds(job_id, "Queued"))
        while len(stream.events) < 5:
            for verb in ("pause", "resume"):
                await client.post(f"/api/jobs/{job_id}/{verb}")
    gaps = [later.at - sooner.at for sooner, later in itertools.pairwise(stream.events)]
    assert min(gaps) >= GAP_SECONDS * 0.9


async def test_anothers_jobs_are_not_told(
    server_url: str, start: Start, society: Society, other: Society, stranger: httpx.AsyncClient
) -> None:
    async with streamed(server_url, "/api/jobs/stream", other.api_key) as theirs:
        await theirs.saw(bool)
        ours = (await start(strategy="queued")).json()["jobId"]
        async with streamed(server_url, "/api/jobs/stream", society.api_key) as stream:
            await stream.saw(holds(ours, "Queued"))
    assert theirs.named("jobs") == [{"items": []}]
    refused(await stranger.get(f"/api/jobs/{ours}/stream"), 404, "JOB_NOT_FOUND")
    refused(await stranger.get(f"/api/jobs/{UNKNOWN}/stream"), 404, "JOB_NOT_FOUND")


async def test_one_job_is_followed_with_its_log(
    server_url: str, start: Start, engine: Engine, client: httpx.AsyncClient, society: Society
) -> None:
    path = f"/api/jobs/{(await start(strategy='queued')).json()['jobId']}"
    async with streamed(server_url, f"{path}/stream", society.api_key) as stream:
        await stream.saw(lambda data: data.get("state") == "Queued")
        await run_job(tuned(engine, batch_rows=10), society.tenant_id, UUID(path.split("/")[-1]))
        await asyncio.wait_for(stream.ended.wait(), 30)
    assert stream.events[-1].data == (await client.get(path)).json()
    log = (await client.get(f"{path}/log")).json()["items"]
    assert stream.named("log") == log
    assert [event.number for event in stream.events if event.name == "log"] == [line["entryNo"] for line in log]
    for headers, query in (({"Last-Event-ID": str(log[1]["entryNo"])}, ""), ({}, f"?after={log[1]['entryNo']}")):
        async with streamed(server_url, f"{path}/stream{query}", society.api_key, **headers) as again:
            await asyncio.wait_for(again.ended.wait(), 30)
        assert again.named("log") == log[2:]
        assert [data["state"] for data in again.named("job")] == ["Completed"]


async def test_a_failed_job_ends_the_stream_and_a_retried_one_has_a_new_one(
    server_url: str, start: Start, engine: Engine, client: httpx.AsyncClient, society: Society
) -> None:
    path = f"/api/jobs/{(await start(strategy='queued')).json()['jobId']}"
    await run_job(tuned(engine, faults="in_batch=error"), society.tenant_id, UUID(path.split("/")[-1]))
    async with streamed(server_url, f"{path}/stream", society.api_key) as stream:
        await asyncio.wait_for(stream.ended.wait(), 30)
        assert stream.named("job")[-1]["errorDetail"]["errorClass"] == "InjectedError"
        await client.post(f"{path}/retry")
        async with streamed(server_url, f"{path}/stream", society.api_key) as again:
            await again.saw(lambda data: data.get("state") == "Queued")
            assert not again.ended.is_set()


@pytest.mark.parametrize("bad", ["x", "-1", "9223372036854775808"])
async def test_what_is_no_place_in_the_log_is_refused(client: httpx.AsyncClient, start: Start, bad: str) -> None:
    path = f"/api/jobs/{(await start()).json()['jobId']}/stream"
    refused(await client.get(path, headers={"Last-Event-ID": bad}), 422, "INVALID_INPUT")
    refused(await client.get(path, params={"after": bad}), 422, "INVALID_INPUT")


@pytest.mark.parametrize("change", ["UPDATE api_keys SET revoked_at = now()", "UPDATE users SET is_active = false"])
async def test_a_stream_ends_when_its_caller_may_no_longer_have_it(
    server_url: str,
    society: Society,
    owner: asyncpg.Connection,
    key_for: Callable[[str], Awaitable[str]],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    assert streams.CHECK_SECONDS + streams.ANSWER_SECONDS < 15
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.6)
    monkeypatch.setattr(streams, "ANSWER_SECONDS", 0.1)
    async with (
        streamed(server_url, "/api/jobs/stream", await key_for("viewer")) as stream,
        streamed(server_url, "/api/jobs/stream", society.api_key) as other,
    ):
        await stream.saw(bool)
        await owner.execute(f"{change} WHERE user_id <> $1", society.user_id)
        await asyncio.wait_for(stream.ended.wait(), 30)
        assert not other.ended.is_set()


async def test_who_leaves_is_forgotten(app: FastAPI, server_url: str, start: Start, society: Society) -> None:
    job_id = (await start(strategy="queued")).json()["jobId"]
    for path in ("/api/jobs/stream", f"/api/jobs/{job_id}/stream"):
        async with streamed(server_url, path, society.api_key) as stream:
            await stream.saw(bool)
    feeds = app.state.feeds
    await eventually(lambda: asyncio.sleep(0, len(feeds._readers)), lambda n: n == 0)
    assert not feeds._hints


async def test_a_slow_watcher_of_jobs_still_hears_every_end() -> None:
    watcher: Watcher[JobsNews] = Watcher()
    a, b, c = (UUID(int=n) for n in range(3))
    watcher.put(JobsNews({b: "1", c: "2"}, {a: "0"}))
    watcher.put(JobsNews({c: "3"}, {b: "4"}))
    watcher.put(JobsNews({a: "5", c: "6"}, {}))  # the first one was taken up again
    news = await watcher.take()
    assert news.event.splitlines()[1] == b'data: {"items":[5,6,4]}'


async def test_a_slow_watcher_of_a_sequence_misses_nothing_or_is_cut_off() -> None:
    watcher: Watcher[Items] = Watcher()
    for number in range(MOST_ITEMS):
        watcher.put(Items([Item(number, b"")]))
    assert [item.number for item in (await watcher.take()).items] == list(range(MOST_ITEMS))
    for number in range(MOST_ITEMS + 2):
        watcher.put(Items([Item(number, b"")]))
    assert (await watcher.take()).is_cut


async def test_the_streams_outlive_redis_and_postgresql(own_servers: Servers) -> None:
    """Both go away and come back: the same stream goes on."""
    owner = await asyncpg.connect(own_servers.postgres.admin_url)
    society = await make_society(owner, members=100)
    await owner.close()
    settings = Settings(
        _env_file=None, database_url=own_servers.postgres.app_url, redis_url=own_servers.valkey.url, inline_below=0
    )
    app = create_app(settings)
    body = {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead)}
    async with app.router.lifespan_context(app), served(app) as url:
        headers = {"Authorization": f"Bearer {society.api_key}", "Idempotency-Key": "1"}
        async with (
            httpx.AsyncClient(base_url=url, headers=headers) as client,
            streamed(url, "/api/jobs/stream", society.api_key) as stream,
        ):
            job_id = (await client.post("/api/contribution-cycles", json=body)).json()["jobId"]
            await stream.saw(holds(job_id, "Queued"))
            own_servers.valkey.stop()
            (await client.post(f"/api/jobs/{job_id}/pause")).raise_for_status()
            await stream.saw(holds(job_id, "Paused"))
            own_servers.postgres.stop(mode="immediate")
            await asyncio.to_thread(own_servers.postgres.start)
            own_servers.valkey.start()

            async def cancelled() -> bool:
                return (await client.post(f"/api/jobs/{job_id}/cancel")).is_success

            await eventually(cancelled)
            await stream.saw(holds(job_id, "Cancelled"))
            assert not stream.ended.is_set()
