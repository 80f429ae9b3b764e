"""Events: their shapes, and that those of an aggregate are its row again."""

from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from db.database import Transaction
from domain.events import AGGREGATES, EVENT_TYPES, EventType, Tier, append_event
from domain.replay import Difference, Replayed, replay
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.invariants import broken_invariants
from tests.cycles import job_of, start, steer
from tests.support import Society

BOOKKEEPING = {"tenant_id", "version", "created_by", "created_at", "updated_at"}


async def differences(owner: asyncpg.Connection, society: Society) -> list[Difference]:
    return [each async for each in replay(owner, society.tenant_id, Replayed())]


@pytest.mark.parametrize("name", AGGREGATES)
async def test_the_shape_of_an_aggregate_has_each_column_of_its_table(owner: asyncpg.Connection, name: str) -> None:
    table = await owner.fetchval(
        "SELECT c.relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
        " JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary AND i.indkey[1] = a.attnum AND i.indnkeyatts = 2"
        " WHERE a.attname = $1",
        AGGREGATES[name].key,
    )
    columns = await owner.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0", table
    )
    kept = {row[0] for row in columns} - BOOKKEEPING - {AGGREGATES[name].key}
    assert set(AGGREGATES[name].state.model_fields) == kept


async def test_everything_that_people_and_jobs_do_replays_to_the_rows(
    engine: Engine, owner: asyncpg.Connection, society: Society, client: httpx.AsyncClient
) -> None:
    for path, body in (
        ("tiers", {"code": "B", "name": "B", "contributionAmount": "999999999999.99", "benefitAmount": "0.01"}),
        ("agents", {"code": "X", "name": "नाम"}),
    ):
        assert (await client.post(f"/api/{path}", json=body)).status_code == 201
    member = (await client.get("/api/members?status=Active&limit=1")).json()["items"][0]
    for version, changes in enumerate(({"phone": "+977 1 5550100"}, {"status": "Inactive"}, {"agentId": None}), 1):
        answer = await client.patch(f"/api/members/{member['memberId']}", json={"version": version, **changes})
        assert answer.status_code == 200
    headers = {"Idempotency-Key": "k", "Content-Type": "text/csv"}
    csv = "full_name,tier,joined_on,phone\nA B,A,2020-01-31,\nC D,B,,12345\n"
    job = (await client.post("/api/members/import", content=csv, headers=headers)).json()
    await run_job(engine, society.tenant_id, job["jobId"])
    await start(engine, society, "inline")
    cancelled = await job_of(owner, await start(engine, society))
    await steer(engine, society, "cancel", cancelled["job_id"])
    walked = Replayed()
    assert [each async for each in replay(owner, society.tenant_id, walked)] == []
    assert walked.aggregates == await owner.fetchval("SELECT count(*) FROM aggregates")
    assert await broken_invariants(owner) == []
    told = await owner.fetch(
        "SELECT event_type, created_by FROM events WHERE event_type LIKE 'Member%ed' AND version > 1"
    )
    assert {tuple(row) for row in told} == {("MemberChanged", society.user_id)}
    imported = await owner.fetch("SELECT created_by, payload FROM events WHERE event_type = 'MemberImported'")
    assert [row["created_by"] for row in imported] == [society.user_id] * 2


async def test_a_change_is_recorded_alone(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    member = (await client.get("/api/members?status=Active&limit=1")).json()["items"][0]
    await client.patch(f"/api/members/{member['memberId']}", json={"version": 1, "phone": "12345", "status": "Active"})
    payload = await owner.fetchval("SELECT payload FROM events WHERE event_type = 'MemberChanged'")
    assert payload == '{"phone": "12345"}'


PLANTED = {
    "a field in the row": ("UPDATE tiers SET name = 'x', version = 1", ("tier", "version")),
    "a field in the events": (
        "UPDATE events SET payload = payload || '{\"name\": \"x\"}' WHERE aggregate_type = 'tier'",
        ("tier", "name"),
    ),
    "money": (
        "UPDATE events SET payload = payload || '{\"benefitAmount\": \"500000.01\"}' WHERE aggregate_type = 'tier'",
        ("tier", "benefitAmount"),
    ),
    "a field that no event tells": (
        "UPDATE events SET payload = payload - 'email' WHERE aggregate_type = 'user'",
        ("user", "email"),
    ),
    "an event is gone": ("DELETE FROM events WHERE aggregate_type = 'tier'", ("tier", "version")),
    "a type that nobody knows": (
        "UPDATE events SET event_type = 'TierEaten' WHERE aggregate_type = 'tier'",
        ("tier", "events"),
    ),
    "a payload without its shape": (
        "UPDATE events SET payload = payload || '{\"colour\": \"red\"}' WHERE aggregate_type = 'tier'",
        ("tier", "events"),
    ),
    "events of nothing": (
        "INSERT INTO events (tenant_id, aggregate_type, aggregate_id, version, event_type, payload)"
        " SELECT tenant_id, 'tier', uuidv7(), 1, 'TierCreated', '{}' FROM tenants",
        ("tier", "version"),
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_a_planted_difference_is_found(owner: asyncpg.Connection, society: Society, planted: str) -> None:
    statement, expected = PLANTED[planted]
    await owner.execute(statement)
    assert [(each.aggregate_type, each.field) for each in await differences(owner, society)] == [expected]


async def test_versions_without_their_events_break_the_invariant(owner: asyncpg.Connection, society: Society) -> None:
    for statement, kind in (
        ("UPDATE members SET phone = '1' WHERE status = 'Deceased'", "member"),
        ("UPDATE users SET name = 'x'", "user"),
        ("DELETE FROM events WHERE aggregate_type = 'tier'", "tier"),
        ("UPDATE events SET version = 2 WHERE aggregate_id = (SELECT agent_id FROM agents LIMIT 1)", "agent"),
    ):
        async with owner.transaction():
            await owner.execute(statement)
            found = await broken_invariants(owner)
            assert {(each.invariant, each.subject.split()[0]) for each in found} == {("broken_events", kind)}, statement
            await owner.execute("DELETE FROM events")
            await owner.execute("SELECT adopt_rows()")
            assert await broken_invariants(owner) == []


@pytest.mark.parametrize(
    ("event_type", "payload", "error"),
    [
        ("TierEaten", {}, KeyError),
        ("TierCreated", {"colour": "red"}, ValueError),
        ("TierCreated", {"name": 1}, ValueError),
    ],
)
async def test_what_has_no_shape_is_not_appended(
    owner: asyncpg.Connection, society: Society, event_type: str, payload: dict[str, Any], error: type[Exception]
) -> None:
    tx = Transaction(owner, society.tenant_id)
    with pytest.raises(error):
        await append_event(tx, event_type, uuid4(), 1, payload)


def test_an_older_payload_is_read_through_its_upcasts() -> None:
    renamed = EventType(
        AGGREGATES["tier"],
        Tier,
        upcasts=(
            lambda old: {"title": old["label"]},
            lambda old: {"name": old["title"]},
        ),
    )
    assert renamed.version == 3
    assert [renamed.read(1, {"label": "x"}), renamed.read(2, {"title": "x"}), renamed.read(3, {"name": "x"})] == [
        {"name": "x"}
    ] * 3


async def test_every_type_that_is_stored_is_known(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    await start(engine, society, "inline")
    stored = await owner.fetch("SELECT DISTINCT event_type, aggregate_type, payload_version FROM events")
    assert {(r[0], r[1], r[2]) for r in stored} <= {(n, e.aggregate.name, e.version) for n, e in EVENT_TYPES.items()}
