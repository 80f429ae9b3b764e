"""The members' lifecycle over HTTP: register, the steps, and what is refused without a trace."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from domain.members import STEPS
from jobs.invariants import broken_invariants
from tests.api.expect import UNKNOWN, refused, unchanged
from tests.support import Society

MEMBERS = "/api/members"
WAY = ("review", "approve", "activate")


def application(society: Society, **changes: object) -> dict[str, object]:
    return {"fullName": "Sita Tamang", "gender": "F", "tierId": str(society.tier_id), **changes}


async def register(client: httpx.AsyncClient, society: Society, **changes: object) -> httpx.Response:
    return await client.post(MEMBERS, json=application(society, **changes), headers={"Idempotency-Key": str(uuid4())})


async def step(client: httpx.AsyncClient, member: dict[str, Any], name: str, **body: object) -> httpx.Response:
    path = f"{MEMBERS}/{member['memberId']}/{name}"
    return await client.post(path, json={"version": member["version"], **body})


async def walk(client: httpx.AsyncClient, society: Society, *steps: str) -> dict[str, Any]:
    member: dict[str, Any] = (await register(client, society)).json()
    for name in steps:
        answer = await step(client, member, name, reason="because")
        assert answer.status_code == 200, answer.text
        member = answer.json()
    return member


async def test_from_application_to_death(
    client: httpx.AsyncClient, owner: asyncpg.Connection, society: Society
) -> None:
    agent = (await client.get("/api/agents")).json()["items"][0]["agentId"]
    contact = {"agentId": agent, "phone": "+977 9812345678", "email": "sita@example.org"}
    answer = await register(client, society, **contact)
    member = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{MEMBERS}/{member['memberId']}"
    assert member | application(society, **contact) == member
    assert (member["status"], member["memberNumber"], member["joinedOn"], member["version"]) == (
        "Pending",
        None,
        None,
        1,
    )
    year = datetime.now(UTC).year
    for name, body, status in (
        ("review", {}, "UnderReview"),
        ("approve", {"reason": "the committee agreed"}, "Approved"),
        ("activate", {}, "Active"),
        ("suspend", {"reason": "in arrears"}, "Suspended"),
        ("resume", {"reason": None}, "Active"),
        ("report-death", {"diedOn": "2025-01-31", "reason": "told by the daughter"}, "Deceased"),
    ):
        answer = await step(client, member, name, **body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == member["version"] + 1
        member = answer.json()
        assert (member["status"], member["statusReason"]) == (status, body.get("reason"))
        assert member["memberNumber"] == (None if name == "review" else f"UML-{year}-F-000001")
        assert (await client.get(f"{MEMBERS}/{member['memberId']}")).json() == member
    assert member["diedOn"] == "2025-01-31"
    assert member["joinedOn"] and member["reviewedAt"] < member["approvedAt"]
    assert await broken_invariants(owner) == []


async def test_a_registration_is_made_once(
    client: httpx.AsyncClient, owner: asyncpg.Connection, society: Society
) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await client.post(MEMBERS, json=application(society), headers=headers)
    async with unchanged(owner):
        again = await client.post(MEMBERS, json=application(society), headers=headers)
        assert (again.status_code, again.json(), again.headers["idempotent-replayed"]) == (201, first.json(), "true")
        other = await client.post(MEMBERS, json=application(society, gender="O"), headers=headers)
        refused(other, 422, "IDEMPOTENCY_KEY_REUSED")
        refused(await client.post(MEMBERS, json=application(society)), 400, "IDEMPOTENCY_KEY_MISSING")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"tierId": UNKNOWN}, 404, "TIER_NOT_FOUND"),
        ({"agentId": UNKNOWN}, 404, "AGENT_NOT_FOUND"),
        ({"memberNumber": "UML-2025-F-000001"}, 422, "INVALID_INPUT"),
        ({"memberId": UNKNOWN}, 422, "INVALID_INPUT"),
        ({"status": "Active"}, 422, "INVALID_INPUT"),
        ({"gender": "X"}, 422, "INVALID_INPUT"),
        ({"fullName": " "}, 422, "INVALID_INPUT"),
        ({"email": "nobody"}, 422, "INVALID_INPUT"),
    ],
)
async def test_a_bad_application_leaves_nothing(
    client: httpx.AsyncClient,
    owner: asyncpg.Connection,
    society: Society,
    changes: dict[str, object],
    status: int,
    code: str,
) -> None:
    async with unchanged(owner):
        refused(await register(client, society, **changes), status, code)


@pytest.mark.parametrize("at", [(), WAY[:1], WAY[:2], WAY, (*WAY, "suspend"), (*WAY, "report-death"), ("reject",)])
async def test_a_step_out_of_turn_is_refused_with_both_states(
    client: httpx.AsyncClient, owner: asyncpg.Connection, society: Society, at: tuple[str, ...]
) -> None:
    next_ones = {
        "Pending": {"review", "reject"},
        "UnderReview": {"approve", "reject"},
        "Approved": {"activate", "report-death"},
        "Active": {"suspend", "report-death"},
        "Suspended": {"resume", "report-death"},
        "Deceased": set(),
        "Rejected": set(),
    }
    member = await walk(client, society, *at)
    async with unchanged(owner):
        for name in STEPS.keys() - next_ones[member["status"]]:
            problem = refused(await step(client, member, name, reason="x"), 409, "INVALID_STATUS_TRANSITION")
            assert problem["context"] == {"current": member["status"], "wanted": STEPS[name]}


async def test_resume_takes_up_who_rested(client: httpx.AsyncClient, society: Society) -> None:
    member = await walk(client, society, *WAY)
    path = f"{MEMBERS}/{member['memberId']}"
    member = (await client.patch(path, json={"version": member["version"], "status": "Inactive"})).json()
    assert (await step(client, member, "resume")).json()["status"] == "Active"


@pytest.mark.parametrize("status", ["UnderReview", "Rejected"])
async def test_a_patch_cannot_do_what_a_step_is_for(
    client: httpx.AsyncClient, owner: asyncpg.Connection, society: Society, status: str
) -> None:
    member = await walk(client, society)
    async with unchanged(owner):
        answer = await client.patch(f"{MEMBERS}/{member['memberId']}", json={"version": 1, "status": status})
        problem = refused(answer, 409, "INVALID_STATUS_TRANSITION")
        assert problem["context"] == {"current": "Pending", "wanted": status}


@pytest.mark.parametrize("name", STEPS)
async def test_what_a_step_needs_is_asked_for(
    client: httpx.AsyncClient, owner: asyncpg.Connection, society: Society, name: str
) -> None:
    at = {"approve": WAY[:1], "activate": WAY[:2], "suspend": WAY, "resume": (*WAY, "suspend"), "report-death": WAY}
    member = await walk(client, society, *at.get(name, ()))
    path = f"{MEMBERS}/{member['memberId']}/{name}"
    good = {"version": member["version"], "reason": "x"}
    bodies: list[dict[str, object]] = [
        *({**good, "version": "1"}, {**good, "version": 0}, {**good, "reason": ""}),
        *({**good, "reason": "x" * 501}, {**good, "reason": 1}, {**good, "memberNumber": "X"}),
    ]
    if name in ("suspend", "reject"):
        bodies += [{"version": member["version"]}, {**good, "reason": None}]
    if name == "report-death":
        tomorrow = (datetime.now(UTC).date() + timedelta(days=1)).isoformat()
        days = [tomorrow, "9999-12-31", "0001-01-01", "2025-02-30", "2025-1-1", "2025-01-01T00:00:00", 0, True]
        bodies += [{**good, "diedOn": day} for day in days]
    else:
        bodies += [{**good, "diedOn": "2025-01-01"}]
    async with unchanged(owner):
        refused(await client.post(path, json={"reason": "x"}), 428, "VERSION_MISSING")
        for body in bodies:
            refused(await client.post(path, json=body), 422, "INVALID_INPUT")
        stale = refused(await client.post(path, json={**good, "version": 99}), 409, "CONCURRENT_MODIFICATION")
        assert stale["context"] == {"version": member["version"], "sent": 99}
        refused(await client.post(f"{MEMBERS}/{UNKNOWN}/{name}", json=good), 404, "MEMBER_NOT_FOUND")
    assert (await client.post(path, json=good)).status_code == 200


async def test_anothers_members_take_no_steps(
    client: httpx.AsyncClient,
    stranger: httpx.AsyncClient,
    owner: asyncpg.Connection,
    society: Society,
    other: Society,
) -> None:
    member = await walk(client, society)
    async with unchanged(owner):
        for name in STEPS:
            refused(await step(stranger, member, name, reason="x"), 404, "MEMBER_NOT_FOUND")
        theirs = await stranger.post(MEMBERS, json=application(society), headers={"Idempotency-Key": "x"})
        refused(theirs, 404, "TIER_NOT_FOUND")


async def test_a_hundred_approvals_at_once_are_numbered_without_gaps(
    client: httpx.AsyncClient, owner: asyncpg.Connection, society: Society
) -> None:
    members = [await walk(client, society, "review") for _ in range(100)]
    answers = await asyncio.gather(*(step(client, member, "approve") for member in members))
    assert {answer.status_code for answer in answers} == {200}
    year = datetime.now(UTC).year
    assert sorted(answer.json()["memberNumber"] for answer in answers) == [
        f"UML-{year}-F-{n:06d}" for n in range(1, 101)
    ]
    assert await broken_invariants(owner) == []


async def test_of_officers_at_once_one_decides(client: httpx.AsyncClient, society: Society) -> None:
    member = await walk(client, society, "review")
    names = ["approve", "reject"] * 5
    answers = await asyncio.gather(*(step(client, member, name, reason="x") for name in names))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    assert {answer.json().get("code") for answer in answers} == {None, "CONCURRENT_MODIFICATION"}


async def test_lists_know_the_new_states(client: httpx.AsyncClient, society: Society) -> None:
    pending, approved = await walk(client, society), await walk(client, society, *WAY[:2])
    for member in (pending, approved):
        found = (await client.get(MEMBERS, params={"status": member["status"]})).json()["items"]
        assert found == [member]
    assert (await client.get(MEMBERS, params={"status": "Suspended"})).json()["items"] == []
    searched = (await client.get(MEMBERS, params={"search": "tamang"})).json()["items"]
    assert [member["memberId"] for member in searched] == [pending["memberId"], approved["memberId"]]
    refused(await client.get(MEMBERS, params={"status": "Gone"}), 422, "INVALID_INPUT")


async def test_a_reported_death_may_start_a_cycle_and_an_application_may_not(
    client: httpx.AsyncClient, owner: asyncpg.Connection, society: Society
) -> None:
    dead, alive = await walk(client, society, *WAY, "report-death"), await walk(client, society, *WAY)
    headers = {"Idempotency-Key": "1"}
    body = {"tierId": str(society.tier_id), "deceasedMemberId": alive["memberId"]}
    refused(await client.post("/api/contribution-cycles", json=body, headers=headers), 422, "INVALID_INPUT")
    cycle = await client.post(
        "/api/contribution-cycles", json={**body, "deceasedMemberId": dead["memberId"]}, headers=headers
    )
    assert (cycle.status_code, cycle.json()["totalMembers"]) == (201, society.members + 1)
    path = f"/api/contribution-cycles/{cycle.json()['cycleId']}/contributions"
    assert (await client.get(f"{path}/{alive['memberId']}")).json()["memberNumber"] == alive["memberNumber"]
    refused(await client.get(f"{path}/{dead['memberId']}"), 404, "CONTRIBUTION_NOT_FOUND")
    assert UUID(dead["memberId"]) and await broken_invariants(owner) == []
