"""The feed: one order without gaps, in which nothing that committed late is ever skipped."""

import asyncio
import importlib
from typing import Any

import asyncpg
import httpx
import pytest

from jobs.engine.engine import Engine
from jobs.maintenance import run_maintenance
from tests.api.expect import refused
from tests.support import Society

INSERT = (
    "INSERT INTO events (tenant_id, aggregate_type, aggregate_id, version, event_type, payload)"
    " VALUES ($1, 'tier', uuidv7(), 1, $2, '{}')"
)

RELAY = importlib.import_module("jobs.maintenance.relay_events")  # the package has a function of that name


async def read(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await client.get("/api/events", params=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def test_a_row_that_commits_late_is_not_skipped(
    engine: Engine, client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    await run_maintenance(engine, "relay_events")
    start = max(event["position"] for event in (await read(client, limit=1_000))["items"])
    async with engine.database.transaction(society.tenant_id) as slow:
        await slow.connection.execute(INSERT, society.tenant_id, "First")
        async with engine.database.transaction(society.tenant_id) as quick:
            await quick.connection.execute(INSERT, society.tenant_id, "Second")
        assert await run_maintenance(engine, "relay_events") == {"placed": 1}
        page = await read(client, after=start)
        assert [(event["eventType"], event["position"]) for event in page["items"]] == [("Second", start + 1)]
    assert (await read(client, after=page["next"]))["items"] == []  # committed, and not placed yet
    assert await run_maintenance(engine, "relay_events") == {"placed": 1}
    rest = await read(client, after=page["next"])
    assert [(event["eventType"], event["position"]) for event in rest["items"]] == [("First", start + 2)]
    assert await read(client, after=rest["next"]) == {"items": [], "next": rest["next"]}


async def test_many_writers_and_relays_give_each_reader_every_event_once(
    engine: Engine, client: httpx.AsyncClient, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RELAY, "MOST", 7)
    seen: list[dict[str, Any]] = []
    after, writing = 0, True

    async def write(number: int) -> None:
        for turn in range(10):
            body = {"code": f"W{number}-{turn}", "name": "x"}
            assert (await client.post("/api/agents", json=body)).status_code == 201

    async def relay() -> None:
        while writing:
            assert await run_maintenance(engine, "relay_events") is not None

    async def follow() -> None:
        nonlocal after
        last_round = False
        while True:
            page = await read(client, after=after, limit=9)
            seen.extend(page["items"])
            after = page["next"]
            if not page["items"] and last_round:
                return
            last_round = not writing

    relays = [asyncio.create_task(relay()) for _ in range(2)]
    reader = asyncio.create_task(follow())
    await asyncio.gather(*(write(number) for number in range(5)))
    writing = False
    await asyncio.gather(*relays)
    await run_maintenance(engine, "relay_events")
    await reader
    seen += (await read(client, after=after, limit=1_000))["items"]
    assert [event["position"] for event in seen] == list(range(1, len(seen) + 1))
    assert len(seen) == await owner.fetchval("SELECT count(*) FROM events")
    assert sum(event["eventType"] == "AgentCreated" for event in seen) == 50


async def test_an_event_is_shown_whole(engine: Engine, client: httpx.AsyncClient, society: Society) -> None:
    tier = {"code": "B", "name": "तह ख", "contributionAmount": "1.50", "benefitAmount": "2.00"}
    made = (await client.post("/api/tiers", json=tier)).json()
    await run_maintenance(engine, "relay_events")
    event = (await read(client, limit=1_000))["items"][-1]
    assert event.pop("eventId") and event.pop("createdAt").endswith("Z")
    assert event.pop("position") == 106  # after 101 members, a user, a tier and two agents
    assert event == {
        "eventType": "TierCreated",
        "aggregateType": "tier",
        "aggregateId": made["tierId"],
        "version": 1,
        "payloadVersion": 1,
        "payload": tier,
        "createdBy": str(society.user_id),
    }


async def test_each_tenant_has_a_feed_of_its_own(
    engine: Engine, client: httpx.AsyncClient, stranger: httpx.AsyncClient, other: Society
) -> None:
    await run_maintenance(engine, "relay_events")
    ours, theirs = [(await read(each, limit=1_000))["items"] for each in (client, stranger)]
    for feed in (ours, theirs):
        assert [event["position"] for event in feed] == list(range(1, len(feed) + 1))
    assert {event["eventId"] for event in ours}.isdisjoint(event["eventId"] for event in theirs)
    assert len(theirs) == 8


async def test_what_is_no_position_is_refused(client: httpx.AsyncClient) -> None:
    for bad in ("after=-1", "after=x", "after=9223372036854775808", "limit=0", "limit=1001", "before=1"):
        refused(await client.get(f"/api/events?{bad}"), 422, "INVALID_INPUT")


async def test_the_feed_is_not_for_those_who_only_look(client: httpx.AsyncClient, key_for: Any) -> None:
    client.headers["Authorization"] = f"Bearer {await key_for('viewer')}"
    refused(await client.get("/api/events"), 403, "INSUFFICIENT_PERMISSIONS")


async def test_the_app_cannot_place_or_change_an_event_itself(engine: Engine, society: Society) -> None:
    for statement in ("UPDATE events SET position = 1", "DELETE FROM events", "SELECT adopt_rows()"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with engine.database.transaction(society.tenant_id) as tx:
                await tx.connection.execute(statement)


async def test_the_lag_is_measured(
    engine: Engine, owner: asyncpg.Connection, society: Society, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(RELAY, "emit", lambda event, **fields: told.update(fields))
    await owner.execute("UPDATE events SET created_at = now() - interval '90 seconds' WHERE aggregate_type = 'user'")
    await run_maintenance(engine, "relay_events")
    assert told["placed"] == 105 and told["oldest_seconds"] >= 90
    await run_maintenance(engine, "relay_events")
    assert told == {"placed": 0, "oldest_seconds": 0.0}
