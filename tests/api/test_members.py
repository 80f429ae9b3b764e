"""Members over HTTP: found, changed under an optimistic lock, brought in as a CSV."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.invariants import broken_invariants
from tests.api.expect import UNKNOWN, refused, unchanged
from tests.support import Society

IMPORT = "/api/members/import"
CSV = {"Content-Type": "text/csv; charset=utf-8"}


async def an_active_one(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/api/members?status=Active&limit=1")).json()["items"][0]
    return found


async def memberships(owner: asyncpg.Connection, member: dict[str, Any]) -> list[tuple[UUID, bool]]:
    rows = await owner.fetch(
        "SELECT tier_id, valid_to IS NULL AS open FROM tier_memberships WHERE member_id = $1 ORDER BY valid_from",
        UUID(member["memberId"]),
    )
    return [(row["tier_id"], row["open"]) for row in rows]


async def test_members_are_found_by_name_number_status_and_tier(client: httpx.AsyncClient, society: Society) -> None:
    async def numbers(**query: object) -> list[str]:
        answer = await client.get("/api/members", params={"limit": 1000, **query})
        return [member["memberNumber"] for member in answer.json()["items"]]

    assert len(await numbers()) == 101
    assert await numbers(search="member 42") == ["OLD-42"]
    assert await numbers(search="old-7") == ["OLD-7", *(f"OLD-{n}" for n in range(70, 80))]
    assert await numbers(search="100%") == await numbers(search="_") == []
    assert await numbers(status="Deceased", tier="A") == ["OLD-0"]
    assert await numbers(tier="Z") == []


async def test_members_are_paged_without_gaps(client: httpx.AsyncClient) -> None:
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 33, "status": "Active"}
    while True:
        page = (await client.get("/api/members", params=query)).json()
        seen += [member["memberId"] for member in page["items"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert len(seen) == len(set(seen)) == 100


async def test_one_member(client: httpx.AsyncClient, society: Society) -> None:
    dead = (await client.get(f"/api/members/{society.dead}")).json()
    assert set(dead) == {
        *("memberId", "memberNumber", "fullName", "gender", "status", "tierId", "agentId", "phone", "email"),
        *("joinedOn", "version", "createdAt", "updatedAt"),
        *("statusReason", "reviewedAt", "approvedAt", "diedOn"),
    }
    assert (dead["status"], dead["joinedOn"], dead["version"]) == ("Deceased", "2020-01-01", 1)
    refused(await client.get(f"/api/members/{UNKNOWN}"), 404, "MEMBER_NOT_FOUND")


async def test_a_change_gives_the_next_version(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    member = await an_active_one(client)
    path = f"/api/members/{member['memberId']}"
    changes = {"fullName": "राम बहादुर", "gender": "M", "phone": "+977 9812345678", "email": "ram@example.org"}
    answer = await client.patch(path, json={"version": 1, **changes})
    assert answer.status_code == 200
    changed = answer.json()
    assert {**member, **changes, "version": 2, "updatedAt": changed["updatedAt"]} == changed
    cleared = await client.patch(path, json={"version": 2, "agentId": None, "phone": None, "email": None})
    assert {cleared.json()[name] for name in ("agentId", "phone", "email")} == {None}
    assert cleared.json()["version"] == 3
    assert await memberships(owner, member) == [(UUID(member["tierId"]), True)]


async def test_a_stale_version_is_refused_with_the_present_one(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    path = f"/api/members/{(await an_active_one(client))['memberId']}"
    await client.patch(path, json={"version": 1, "fullName": "First"})
    async with unchanged(owner):
        answer = await client.patch(path, json={"version": 1, "fullName": "Second"})
        problem = refused(answer, 409, "CONCURRENT_MODIFICATION")
    assert problem["context"] == {"version": 2, "sent": 1}


async def test_of_changes_at_once_one_wins(client: httpx.AsyncClient) -> None:
    path = f"/api/members/{(await an_active_one(client))['memberId']}"
    bodies = [{"version": 1, "fullName": f"Number {n}"} for n in range(8)]
    answers = await asyncio.gather(*(client.patch(path, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert (await client.get(path)).json()["version"] == 2


async def test_status_and_tier_move_the_membership(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    body = {"code": "B", "name": "B", "contributionAmount": "1", "benefitAmount": "1"}
    tier = UUID((await client.post("/api/tiers", json=body)).json()["tierId"])
    member = await an_active_one(client)
    path, a = f"/api/members/{member['memberId']}", society.tier_id
    steps: list[tuple[dict[str, object], list[tuple[UUID, bool]]]] = [
        ({"tierId": str(tier)}, [(a, False), (tier, True)]),
        ({"status": "Inactive"}, [(a, False), (tier, False)]),
        ({"tierId": str(a)}, [(a, False), (tier, False)]),
        ({"status": "Active"}, [(a, False), (tier, False), (a, True)]),
        ({"status": "Deceased"}, [(a, False), (tier, False), (a, False)]),
    ]
    for version, (changes, expected) in enumerate(steps, 1):
        assert (await client.patch(path, json={"version": version, **changes})).status_code == 200
        assert await memberships(owner, member) == expected


async def test_the_dead_stay_dead(client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection) -> None:
    async with unchanged(owner):
        for status in ("Active", "Inactive"):
            answer = await client.patch(f"/api/members/{society.dead}", json={"version": 1, "status": status})
            problem = refused(answer, 409, "INVALID_STATUS_TRANSITION")
            assert problem["context"] == {"current": "Deceased", "wanted": status}


async def test_an_import_becomes_a_job(
    client: httpx.AsyncClient, engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    content = "full_name,tier\r\nराम,A\r\nSita,Z\r\n".encode()
    answer = await client.post(IMPORT, content=content, headers={"Idempotency-Key": "i", **CSV})
    job = answer.json()
    assert (answer.status_code, job["kind"], job["state"]) == (202, "import_members", "Queued")
    assert answer.headers["location"] == f"/api/jobs/{job['jobId']}"
    async with unchanged(owner):
        again = await client.post(IMPORT, content=content, headers={"Idempotency-Key": "i", **CSV})
        assert (again.status_code, again.json(), again.headers["idempotent-replayed"]) == (202, job, "true")
        other = {"content": content + b"Hari,A\r\n", "headers": {"Idempotency-Key": "i", **CSV}}
        refused(await client.post(IMPORT, **other), 422, "IDEMPOTENCY_KEY_REUSED")
        dry = await client.post(f"{IMPORT}?dryRun=true", content=content, headers={"Idempotency-Key": "i", **CSV})
        refused(dry, 422, "IDEMPOTENCY_KEY_REUSED")
        refused(await client.post(IMPORT, content=content, headers=CSV), 400, "IDEMPOTENCY_KEY_MISSING")
    await run_job(engine, society.tenant_id, UUID(job["jobId"]))
    log = (await client.get(f"{answer.headers['location']}/log")).json()["items"]
    assert [entry["fields"] for entry in log if entry["event"] == "row_rejected"] == [
        {"line": 3, "column": "tier", "reason": "no tier has the code Z"}
    ]
    (ram,) = (await client.get("/api/members", params={"search": "राम"})).json()["items"]
    assert (ram["gender"], ram["status"], ram["tierId"]) == ("O", "Active", str(society.tier_id))
    assert await broken_invariants(owner) == []


@pytest.mark.parametrize(
    "content", ["full_name,tier\n", "\ufefffull_name,tier\n", "tier,full_name", '"full_name","tier"\n\n\n']
)
async def test_a_file_without_rows_is_fine(
    client: httpx.AsyncClient, engine: Engine, society: Society, owner: asyncpg.Connection, content: str
) -> None:
    answer = await client.post(IMPORT, content=content.encode(), headers={"Idempotency-Key": "i", **CSV})
    await run_job(engine, society.tenant_id, UUID(answer.json()["jobId"]))
    job = (await client.get(answer.headers["location"])).json()
    assert (job["state"], job["total"], job["percentage"]) == ("Completed", 0, 100)
    assert await broken_invariants(owner) == []


async def test_a_client_that_goes_in_the_middle_of_its_file_is_no_defect(
    app: FastAPI, society: Society, owner: asyncpg.Connection
) -> None:
    said: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    headers = {"authorization": f"Bearer {society.api_key}", "idempotency-key": "gone", "content-type": "text/csv"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/members/import",
        "query_string": b"",
        "http_version": "1.1",
    }
    async with unchanged(owner):
        await app({**scope, "headers": [(n.encode(), v.encode()) for n, v in headers.items()]}, receive, send)
    assert said[0]["status"] == 400
