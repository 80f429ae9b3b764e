"""Cycles over HTTP: start, read, page, and the one answer of an idempotency key."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from tests.api.conftest import Start
from tests.api.expect import UNKNOWN, refused, start_of, unchanged
from tests.cycles import tuned
from tests.support import Society, assert_whole

PATH = "/api/contribution-cycles"
FIELDS = {
    *("cycleId", "cycleCode", "claimId", "tierId", "deceasedMemberId", "cycleStatus", "contributionAmount"),
    *("benefitAmount", "targetAmount", "collectedAmount", "startDate", "deadline", "createdAt", "createdBy"),
    *("jobId", "jobStatus", "jobProgress", "jobStartedAt", "jobCompletedAt", "jobError", "totalMembers"),
    *("pendingMembers", "paidMembers", "failedMembers", "updatedAt", "version"),
    *("tierCode", "tierName", "createdByName", "jobRate", "estimatedTimeRemaining"),
}


async def post(client: httpx.AsyncClient, society: Society, key: str, **changes: object) -> httpx.Response:
    return await client.post(PATH, json=start_of(society, **changes), headers={"Idempotency-Key": key})


async def test_a_small_cycle_is_active_at_once(start: Start, society: Society, owner: asyncpg.Connection) -> None:
    answer = await start()
    cycle = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{PATH}/{cycle['cycleId']}"
    assert set(cycle) == FIELDS
    assert (cycle["cycleStatus"], cycle["jobStatus"], cycle["jobProgress"]) == ("Active", "Completed", 100)
    assert (cycle["totalMembers"], cycle["pendingMembers"], cycle["paidMembers"]) == (100, 100, 0)
    assert (cycle["contributionAmount"], cycle["targetAmount"], cycle["collectedAmount"]) == (
        "100.00",
        "10000.00",
        "0.00",
    )
    assert cycle["createdAt"].endswith("Z")
    await assert_whole(owner, society, UUID(cycle["cycleId"]))


async def test_a_queued_cycle_is_initializing_until_its_job_has_run(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    answer = await start(strategy="queued", contributionAmount="12.50", durationDays=30, claimId=UNKNOWN, priority=5)
    cycle = answer.json()
    assert (answer.status_code, cycle["cycleStatus"], cycle["jobStatus"]) == (202, "Initializing", "Queued")
    assert (cycle["targetAmount"], cycle["totalMembers"], cycle["claimId"]) == (None, 0, UNKNOWN)
    where = answer.headers["location"]
    assert (await client.get(where)).json() == cycle
    assert (await client.get(f"{where}/contributions")).json() == {"items": [], "next": None}
    await run_job(engine, society.tenant_id, UUID(cycle["jobId"]))
    done = (await client.get(where)).json()
    assert (done["cycleStatus"], done["targetAmount"], done["version"]) == ("Active", "1250.00", 2)
    await assert_whole(owner, society, UUID(cycle["cycleId"]))


async def test_contributions_are_paged_and_found_by_member(client: httpx.AsyncClient, start: Start) -> None:
    where = (await start()).headers["location"]
    seen, after = [], ""
    while after is not None:
        page = (await client.get(f"{where}/contributions?limit=30{after}")).json()
        seen += page["items"]
        after = page["next"] and f"&after={page['next']}"
    assert len(seen) == 100 and len({row["memberId"] for row in seen}) == 100
    assert set(seen[0]) == {
        *("contributionId", "memberId", "memberNumber", "memberName", "contributionAmount", "contributionStatus"),
        "dueDate",
    }
    one = await client.get(f"{where}/contributions/{seen[41]['memberId']}")
    assert one.json() == seen[41]


async def test_contributions_of_an_unfinished_cycle_are_nobodys_business(
    client: httpx.AsyncClient, start: Start, owner: asyncpg.Connection
) -> None:
    cycle = (await start(strategy="queued")).json()
    member = await owner.fetchval("SELECT member_id FROM members WHERE status = 'Active' LIMIT 1")
    path = f"{PATH}/{cycle['cycleId']}/contributions/{member}"
    refused(await client.get(path), 404, "CONTRIBUTION_NOT_FOUND")


async def test_lists_are_newest_first_by_status_and_paged(client: httpx.AsyncClient, start: Start) -> None:
    made = [(await start(strategy=strategy)).json()["cycleId"] for strategy in ("inline", "queued", "inline")]
    first = (await client.get(PATH, params={"limit": 2})).json()
    rest = (await client.get(PATH, params={"limit": 2, "after": first["next"]})).json()
    assert [c["cycleId"] for c in first["items"] + rest["items"]] == made[::-1]
    assert rest["next"] is None
    active = (await client.get(PATH, params={"status": "Active"})).json()
    assert [c["cycleId"] for c in active["items"]] == [made[2], made[0]]


async def test_a_repeated_request_is_answered_the_same_and_does_nothing(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    first = await post(client, society, "once")
    async with unchanged(owner):
        again = await post(client, society, "once", durationDays=15.0)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["location"] == first.headers["location"]
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")


async def test_a_key_belongs_to_one_request(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    await post(client, society, "mine")
    async with unchanged(owner):
        refused(await post(client, society, "mine", durationDays=16), 422, "IDEMPOTENCY_KEY_REUSED")


async def test_a_key_is_required(client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection) -> None:
    async with unchanged(owner):
        refused(await client.post(PATH, json=start_of(society)), 400, "IDEMPOTENCY_KEY_MISSING")


@pytest.mark.parametrize("key", ["a b", "x" * 256, "ключ".encode(), b"\xff", "tab\tkey"])
async def test_a_key_is_printable_and_short(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection, key: str | bytes
) -> None:
    async with unchanged(owner):
        answer = await client.post(PATH, json=start_of(society), headers={b"Idempotency-Key": key})
        refused(answer, 422, "INVALID_INPUT")


async def test_a_key_in_flight_is_refused_until_its_request_ends(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    async with owner.transaction():
        await owner.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('idempotency ' || $1::uuid || ' ' || 'busy', 0))",
            society.tenant_id,
        )
        refused(await post(client, society, "busy"), 409, "IDEMPOTENCY_KEY_IN_FLIGHT")
    assert (await post(client, society, "busy")).status_code == 201


async def test_a_refused_request_leaves_its_key_free(client: httpx.AsyncClient, society: Society) -> None:
    refused(await post(client, society, "free", tierId=UNKNOWN), 404, "TIER_NOT_FOUND")
    assert (await post(client, society, "free")).status_code == 201


async def test_the_same_key_twenty_times_at_once_starts_one_cycle(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(post(client, society, "race") for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    cycles = {answer.json()["cycleId"] for answer in answers if answer.status_code == 201}
    assert len(cycles) == 1 == await owner.fetchval("SELECT count(*) FROM contribution_cycles")
    for answer in answers:
        if answer.status_code == 409:
            refused(answer, 409, "IDEMPOTENCY_KEY_IN_FLIGHT")


async def test_tenants_do_not_share_keys(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, society: Society, other: Society
) -> None:
    ours, theirs = await post(client, society, "same"), await post(stranger, other, "same")
    assert (ours.status_code, theirs.status_code) == (201, 201)
    assert ours.json()["cycleId"] != theirs.json()["cycleId"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"tierId": UNKNOWN}, 404, "TIER_NOT_FOUND"),
        ({"deceasedMemberId": UNKNOWN}, 404, "MEMBER_NOT_FOUND"),
        ({"deceasedMemberId": "living"}, 422, "INVALID_INPUT"),
        ({"tierId": "another"}, 422, "INVALID_INPUT"),
    ],
)
async def test_only_a_deceased_member_of_the_tier_has_a_cycle(
    client: httpx.AsyncClient,
    society: Society,
    owner: asyncpg.Connection,
    changes: dict[str, str],
    status: int,
    code: str,
) -> None:
    named = {
        "living": await owner.fetchval("SELECT member_id::text FROM members WHERE status = 'Active' LIMIT 1"),
        "another": await owner.fetchval(
            "INSERT INTO tiers (tenant_id, code, name, contribution_amount, benefit_amount)"
            " VALUES ($1, 'B', 'B', 1, 1) RETURNING tier_id::text",
            society.tenant_id,
        ),
    }
    async with unchanged(owner):
        changed = {name: named.get(value, value) for name, value in changes.items()}
        refused(await post(client, society, str(uuid4()), **changed), status, code)


@pytest.mark.parametrize("tail", ["", "/creation-progress", "/creation-progress/stream", "/contributions"])
async def test_an_unknown_cycle_is_not_found(client: httpx.AsyncClient, tail: str) -> None:
    refused(await client.get(f"{PATH}/{UNKNOWN}{tail}"), 404, "CYCLE_NOT_FOUND")


async def test_the_largest_amounts_fit(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society
) -> None:
    most = "999999999999.99"
    cycle = (await start(contributionAmount=most, benefitAmount=most)).json()
    assert cycle["targetAmount"] == "99999999999999.00"
    jobs = (await client.get("/api/jobs?kind=notify_agents_new_cycle")).json()["items"]
    await run_job(engine, society.tenant_id, UUID(jobs[0]["jobId"]))
    assert (await client.get(f"/api/jobs/{jobs[0]['jobId']}")).json()["state"] == "Completed"


async def test_a_preview_says_what_a_start_would_come_to_and_changes_nothing(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    async with unchanged(owner):
        answer = await client.post(f"{PATH}/preview", json=start_of(society, durationDays=10, benefitAmount="7.50"))
    assert answer.status_code == 200, answer.text
    preview = answer.json()
    started = (
        await client.post(
            PATH, json=start_of(society, durationDays=10, benefitAmount="7.50"), headers={"Idempotency-Key": "p"}
        )
    ).json()
    for name in ("tierId", "deceasedMemberId", "contributionAmount", "benefitAmount", "targetAmount", "totalMembers"):
        assert preview[name] == started[name], name
    assert (preview["startDate"], preview["deadline"]) == (started["startDate"], started["deadline"])
    assert (preview["deceasedName"], preview["strategy"]) == ("Member 0", "inline")
    queued = await client.post(f"{PATH}/preview", json=start_of(society, strategy="queued"))
    assert queued.json()["strategy"] == "queued"


async def test_a_preview_is_refused_as_the_start_is(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    alive = await owner.fetchval("SELECT member_id FROM members WHERE status = 'Active' LIMIT 1")
    for changes in ({"tierId": UNKNOWN}, {"deceasedMemberId": UNKNOWN}, {"deceasedMemberId": str(alive)}, {"x": 1}):
        body = start_of(society, **changes)
        started = await client.post(PATH, json=body, headers={"Idempotency-Key": "refused"})
        previewed = await client.post(f"{PATH}/preview", json=body)
        assert previewed.status_code == started.status_code >= 400
        assert previewed.json() == started.json()


async def test_a_cycle_is_shown_with_names_and_the_time_left(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    assert (cycle["tierCode"], cycle["tierName"], cycle["createdByName"]) == ("A", "Tier A", "Administrator")
    assert (cycle["jobRate"], cycle["estimatedTimeRemaining"]) == (0, None)
    steps = tuned(engine, batch_rows=10, slice_seconds=0)
    await run_job(steps, society.tenant_id, UUID(cycle["jobId"]))
    path = f"{PATH}/{cycle['cycleId']}"
    for found in ((await client.get(path)).json(), (await client.get(PATH)).json()["items"][0]):
        assert found["jobProgress"] == 10
        assert found["jobRate"] > 0 and found["estimatedTimeRemaining"] >= 1
    await run_job(engine, society.tenant_id, UUID(cycle["jobId"]))
    done = (await client.get(path)).json()
    assert (done["jobRate"], done["estimatedTimeRemaining"]) == (0, 0)


async def test_contributions_are_found_by_what_the_member_number_begins_with(
    client: httpx.AsyncClient, start: Start
) -> None:
    path = f"{PATH}/{(await start()).json()['cycleId']}/contributions"

    async def numbers(search: str, **query: Any) -> list[str]:
        answer = await client.get(path, params={"search": search, **query})
        assert answer.status_code == 200, answer.text
        return [row["memberNumber"] for row in answer.json()["items"]]

    assert sorted(await numbers("old-1"), key=lambda number: int(number[4:])) == [
        f"OLD-{number}" for number in (1, *range(10, 20), 100)
    ]
    (row,) = (await client.get(path, params={"search": "OLD-42"})).json()["items"]
    assert (row["memberNumber"], row["memberName"]) == ("OLD-42", "Member 42")
    for nothing in ("%", "_LD", "LD-4", "OLD-0", "'; DROP TABLE members; --", "\\", "ओ"):
        assert await numbers(nothing) == [], nothing
    first = (await client.get(path, params={"search": "OLD-1", "limit": 5})).json()
    rest = (await client.get(path, params={"search": "OLD-1", "after": first["next"]})).json()
    assert (len(first["items"]), len(rest["items"]), rest["next"]) == (5, 7, None)
    for bad in ("", "x" * 101, "a\0"):
        refused(await client.get(path, params={"search": bad}), 422, "INVALID_INPUT")
