"""The audit log over HTTP: who, which request, what changed; and nobody else's."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from structlog.contextvars import get_contextvars

from core import telemetry
from db.queries import sql
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from tests.api.conftest import Start, client_of
from tests.api.expect import UNKNOWN, refused
from tests.support import Society

TIER = {"code": "B", "name": "Tier B", "contributionAmount": "50.00", "benefitAmount": "1000.00"}


async def entries(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get("/api/audit", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def member_of(client: httpx.AsyncClient) -> dict[str, Any]:
    member: dict[str, Any] = (await client.get("/api/members?status=Active&limit=1")).json()["items"][0]
    return member


async def test_a_change_tells_who_through_which_request_and_only_what_changed(
    client: httpx.AsyncClient, society: Society
) -> None:
    member = await member_of(client)
    body = {"version": 1, "phone": "+977 1 4220001", "fullName": 'O\'Brien \\ "x"'}
    path = f"/api/members/{member['memberId']}"
    changed = await client.patch(path, json=body, headers={"X-Request-Id": "req-1.a_B"})
    assert (changed.status_code, changed.headers["x-request-id"]) == (200, "req-1.a_B"), changed.text
    (entry,) = await entries(client, recordId=member["memberId"])
    assert (entry["table"], entry["operation"], entry["rowCount"]) == ("members", "UPDATE", 1)
    assert entry["oldValues"] == {"phone": None, "full_name": member["fullName"], "version": 1}
    assert entry["newValues"] == {"phone": "+977 1 4220001", "full_name": body["fullName"], "version": 2}
    assert (entry["userId"], entry["keyId"].replace("-", "")) == (str(society.user_id), society.api_key.split("_")[1])
    assert (entry["requestId"], entry["address"], entry["job"]) == ("req-1.a_B", "127.0.0.1", None)
    assert (entry["databaseRole"], entry["position"]) == ("guthi_app", None)
    assert datetime.now(UTC) - datetime.fromisoformat(entry["at"]) < timedelta(minutes=1)


async def test_an_insert_tells_the_new_row(client: httpx.AsyncClient) -> None:
    tier = (await client.post("/api/tiers", json=TIER)).json()
    (entry,) = await entries(client, table="tiers", recordId=tier["tierId"])
    assert (entry["operation"], entry["oldValues"]) == ("INSERT", None)
    told = {name: entry["newValues"][name] for name in ("code", "name", "contribution_amount", "version")}
    assert told == {"code": "B", "name": "Tier B", "contribution_amount": 50.0, "version": 1}


async def test_what_is_refused_leaves_no_entry(client: httpx.AsyncClient) -> None:
    before = await entries(client)
    member = await member_of(client)
    stale = await client.patch(f"/api/members/{member['memberId']}", json={"version": 9, "phone": "4220001"})
    refused(stale, 409, "CONCURRENT_MODIFICATION")
    assert await entries(client) == before


async def test_a_change_that_a_job_makes_names_the_job(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    asked = await entries(client, table="contribution_cycles", recordId=cycle["cycleId"])
    assert [(e["operation"], e["userId"], e["job"]) for e in asked] == [("INSERT", str(society.user_id), None)]
    await run_job(engine, society.tenant_id, cycle["jobId"])
    newest = (await entries(client, table="contribution_cycles", recordId=cycle["cycleId"]))[0]
    assert newest["newValues"] == {"cycle_status": "Active", "total_members": 100, "version": 2}
    assert (newest["job"], newest["userId"]) == (f"create_contributions {cycle['jobId']}", None)
    states = await entries(client, table="batch_jobs", recordId=cycle["jobId"])
    assert [e["newValues"].get("state") for e in states] == ["Completed", None, "Processing", "Queued"]
    assert [e["job"] is None for e in states] == [False, False, False, True]


async def test_what_a_job_makes_by_the_batch_is_one_entry_a_batch(
    client: httpx.AsyncClient, engine: Engine, society: Society
) -> None:
    rows = "".join(f"Member {n},A\n" for n in range(50))
    headers = {"Idempotency-Key": "import", "Content-Type": "text/csv"}
    job = (await client.post("/api/members/import", content="full_name,tier\n" + rows, headers=headers)).json()
    await run_job(engine, society.tenant_id, job["jobId"])
    brought = [e for e in await entries(client, table="members") if e["job"]]
    assert [(e["rowCount"], e["recordId"], e["job"]) for e in brought] == [(50, None, f"import_members {job['jobId']}")]
    assert brought[0]["newValues"]["first"] < brought[0]["newValues"]["last"]
    assert await entries(client, table="counters") == [], "a number taken follows from the row that has it"


async def test_pages_and_filters(client: httpx.AsyncClient, society: Society) -> None:
    for code in "BCDEF":
        await client.post("/api/agents", json={"code": code, "name": code})
    everything = await entries(client, limit=1000)
    assert [e["entryId"] for e in everything] == sorted((e["entryId"] for e in everything), reverse=True)
    paged: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = (await client.get("/api/audit", params=query)).json()
        paged += page["items"]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert paged == everything
    ours = await entries(client, userId=str(society.user_id), table="agents", operation="INSERT")
    assert [e["newValues"]["code"] for e in ours] == list("FEDCB")
    assert await entries(client, userId=UNKNOWN) == await entries(client, operation="DELETE") == []
    middle = ours[2]["at"]
    later = await entries(client, **{"from": middle})
    sooner = await entries(client, to=middle)
    assert later + sooner == everything and ours[2] in later
    assert (
        await entries(client, to="1960-01-01T00:00:00Z")
        == await entries(client, **{"from": "9999-01-01T00:00:00Z"})
        == []
    )


@pytest.mark.parametrize(
    "query",
    [
        "table=x;y",
        "table=",
        "operation=TRUNCATE",
        "userId=1",
        "from=2025-01-01",
        "from=now",
        "recordId=",
        "limit=0",
        "since=x",
    ],
)
async def test_a_query_that_cannot_be_is_refused(client: httpx.AsyncClient, query: str) -> None:
    refused(await client.get(f"/api/audit?{query}"), 422, "INVALID_INPUT")


async def test_two_tenants_see_only_their_own(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, society: Society, other: Society, owner: asyncpg.Connection
) -> None:
    for either in (client, stranger):
        await either.post("/api/agents", json={"code": "NEW", "name": "New"})
    for either, tenant in ((client, society), (stranger, other)):
        seen = {e["entryId"] for e in await entries(either, limit=1000)}
        theirs = await owner.fetch("SELECT entry_id::text FROM audit_log WHERE tenant_id = $1", tenant.tenant_id)
        assert seen == {row[0] for row in theirs}
    assert await entries(stranger, recordId=str(society.tier_id)) == []


async def test_a_viewer_may_not_read_it(app: FastAPI, key_for: Callable[[str], Awaitable[str]]) -> None:
    async with client_of(app, await key_for("viewer")) as viewer:
        refused(await viewer.get("/api/audit"), 403, "INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize("sent", [None, "", "no spaces", "x" * 101, "ü"])
async def test_a_request_without_a_proper_id_is_given_one(client: httpx.AsyncClient, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-Id": sent.encode()}
    ids = [(await client.get("/api/agents", headers=headers)).headers["x-request-id"] for _ in range(2)]
    assert len({*ids}) == 2 and all(len(each) == 32 for each in ids)


async def test_every_kind_of_answer_and_its_log_lines_carry_the_id(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[str, Any]] = []

    def hear(event: str, _: dict[str, Any]) -> None:
        logged.append((event, get_contextvars().get("request_id")))

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(telemetry, "_subscribers", [hear])
    headers = {"X-Request-Id": "mine"}
    cycle = f"/api/contribution-cycles/{UNKNOWN}/creation-progress"
    for path, status in (("/livez", 200), ("/nowhere", 404), (cycle, 404), ("/api/agents?x=1", 422)):
        answer = await client.get(path, headers=headers)
        assert (answer.status_code, answer.headers.get_list("x-request-id")) == (status, ["mine"])
    monkeypatch.setattr(sql, "list_agents", broken)
    defect = await client.get("/api/agents", headers=headers)
    assert (defect.status_code, defect.headers.get_list("x-request-id")) == (500, ["mine"])
    assert {request_id for _, request_id in logged} == {"mine"}
    assert [event for event, _ in logged if "request" in event][-3:] == [
        "request_began",
        "request_failed",
        "request_ended",
    ]
    assert get_contextvars() == {}, "nothing of a request stays behind"
