"""The feed and the notices as they come: nothing twice, nothing missed, and each to whom it concerns."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.maintenance import run_maintenance
from tests.api.conftest import Start, client_of
from tests.api.expect import refused, start_of
from tests.api.sse import streamed
from tests.cycles import tuned
from tests.support import Society

AGENT = {"name": "x"}


async def feed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get("/api/events?limit=1000")).json()["items"]
    return items


async def test_the_feed_is_followed_from_now_on_and_resumed(
    server_url: str, client: httpx.AsyncClient, engine: Engine, society: Society
) -> None:
    await run_maintenance(engine, "relay_events")
    before = await feed(client)
    async with streamed(server_url, "/api/events/stream", society.api_key) as first:
        await client.post("/api/agents", json={**AGENT, "code": "N1"})
        await run_maintenance(engine, "relay_events")
        await first.saw(lambda event: event["payload"]["code"] == "N1")
    assert len(first.events) == 1
    await client.post("/api/agents", json={**AGENT, "code": "N2"})
    await run_maintenance(engine, "relay_events")
    headers = {"Last-Event-ID": str(first.events[-1].number)}
    async with streamed(server_url, "/api/events/stream?after=0", society.api_key, **headers) as second:
        await second.saw(lambda event: event["payload"].get("code") == "N2")
    assert first.named("event") + second.named("event") == (await feed(client))[len(before) :]
    async with streamed(server_url, "/api/events/stream?after=0", society.api_key) as whole:
        await whole.saw(lambda event: event["payload"].get("code") == "N2")
    assert whole.named("event") == await feed(client)
    assert [event.number for event in whole.events] == list(range(1, len(whole.events) + 1))


async def test_many_who_join_in_the_middle_each_get_everything_once(
    server_url: str, client: httpx.AsyncClient, engine: Engine, society: Society
) -> None:
    async def write() -> None:
        for number in range(40):
            await client.post("/api/agents", json={**AGENT, "code": f"W{number}"})
            await run_maintenance(engine, "relay_events")

    async def follow() -> list[int | None]:
        async with streamed(server_url, "/api/events/stream?after=0", society.api_key) as stream:
            await stream.saw(lambda event: event["payload"].get("code") == "W39")
        return [event.number for event in stream.events]

    writing = asyncio.create_task(write())
    seen = [asyncio.create_task(follow()) for _ in range(3)]
    await asyncio.wait(seen, timeout=0.3)
    seen += [asyncio.create_task(follow()) for _ in range(3)]
    await writing
    for numbers in await asyncio.gather(*seen):
        assert numbers == list(range(1, len(numbers) + 1))


async def test_the_feed_is_not_streamed_to_those_who_only_look(
    client: httpx.AsyncClient, key_for: Callable[[str], Awaitable[str]]
) -> None:
    client.headers["Authorization"] = f"Bearer {await key_for('viewer')}"
    refused(await client.get("/api/events/stream"), 403, "INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize("path", ["/api/events/stream", "/api/notices", "/api/notices/stream"])
@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=9223372036854775808", "before=1"])
async def test_what_is_no_position_is_refused(client: httpx.AsyncClient, path: str, query: str) -> None:
    refused(await client.get(f"{path}?{query}"), 422, "INVALID_INPUT")


async def test_who_started_a_cycle_is_told_how_it_ended_and_nobody_else_is(
    app: FastAPI,
    server_url: str,
    client: httpx.AsyncClient,
    engine: Engine,
    society: Society,
    other: Society,
    key_for: Callable[[str], Awaitable[str]],
) -> None:
    operator = await key_for("operator")
    here = (await client.get("/api/notices")).json()
    assert here["items"] == []
    async with (
        streamed(server_url, "/api/notices/stream", operator) as told,
        streamed(server_url, "/api/notices/stream", society.api_key) as colleague,
        streamed(server_url, "/api/notices/stream", other.api_key) as stranger,
        client_of(app, operator) as theirs,
    ):

        async def start(**changes: Any) -> dict[str, Any]:
            headers = {"Idempotency-Key": str(uuid4())}
            answer = await theirs.post("/api/contribution-cycles", json=start_of(society, **changes), headers=headers)
            cycle: dict[str, Any] = answer.json()
            return cycle

        ready = await start()
        failed, cancelled = await start(strategy="queued"), await start(strategy="queued")
        await run_job(tuned(engine, faults="in_batch=error"), society.tenant_id, UUID(failed["jobId"]))
        await theirs.post(f"/api/jobs/{cancelled['jobId']}/cancel")
        await run_maintenance(engine, "relay_events")
        await told.saw(lambda notice: notice["kind"] == "cycle_cancelled")
        notices = told.named("notice")
        listed = (await theirs.get("/api/notices", params={"after": here["next"]})).json()
        resumed = {"Last-Event-ID": str(notices[0]["position"])}
        async with streamed(server_url, "/api/notices/stream", operator, **resumed) as again:
            await again.saw(lambda notice: notice["kind"] == "cycle_cancelled")
        assert again.named("notice") == notices[1:]
    assert [(notice["kind"], notice["cycleId"], notice["totalMembers"]) for notice in notices] == [
        ("cycle_ready", ready["cycleId"], 100),
        ("cycle_failed", failed["cycleId"], None),
        ("cycle_cancelled", cancelled["cycleId"], None),
    ]
    assert notices[0].keys() == {"position", "kind", "cycleId", "cycleCode", "totalMembers", "reason", "at"}
    assert notices[0]["cycleCode"] == ready["cycleCode"] and "injected" in notices[1]["reason"]
    assert colleague.events == stranger.events == []
    assert listed["items"] == notices
    assert (await client.get("/api/notices", params={"after": here["next"]})).json()["items"] == []
    assert (await client.get("/api/notices")).json()["next"] == listed["next"] >= notices[-1]["position"]


async def test_a_cycles_own_events_are_its_timeline(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    path = f"/api/contribution-cycles/{cycle['cycleId']}/events"
    (event,) = (await client.get(path)).json()["items"]
    assert (event["eventType"], event["position"], event["version"]) == ("ContributionCycleInitiated", None, 1)
    await run_job(engine, society.tenant_id, UUID(cycle["jobId"]))
    await run_maintenance(engine, "relay_events")
    events = (await client.get(path)).json()["items"]
    assert [event["eventType"] for event in events] == ["ContributionCycleInitiated", "ContributionCycleActivated"]
    assert all(event["position"] for event in events)
    refused(await stranger.get(path), 404, "CYCLE_NOT_FOUND")
