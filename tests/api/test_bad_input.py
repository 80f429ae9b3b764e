"""Wrong requests: each gets a problem that says what to do, and changes nothing. Never a 500."""

import json
from typing import Any

import asyncpg
import httpx
import pytest

from tests.api.conftest import Start
from tests.api.expect import UNKNOWN, refused, start_of, unchanged
from tests.support import Society

CYCLES = "/api/contribution-cycles"
TIER = {"code": "B", "name": "Tier B", "contributionAmount": "100", "benefitAmount": "5"}
NO_TEXT = [None, 5, 1.5, True, [], {}, "", " ", " x", "x ", "a\0b", "a\nb", "\x7f", "\ud800", "x\udfff", "x" * 201]
NO_ID = [None, 5, True, [], {}, "", "x", UNKNOWN[:-1], UNKNOWN + "0", "\0", "\ud800" * 36, "9" * 10_000]
NO_MONEY = [
    *("-1", "0", "0.00", "-0", "NaN", "Infinity", "-Infinity", "1.001", "1.", ".5", "1e3", "1,000", " 1", "1 ", ""),
    *("1000000000000", "999999999999.999", "00.5", "१", "\ud800", "1\0", "9" * 5_000, 0, -1, 0.5, 10**12, 1e300),
    *(True, [], {}, float("nan"), float("inf"), float("-inf")),
]
NO_DURATION = [0, -1, 1_000_000_000, 10**100, 1.5, "15", True, None, [], float("nan"), float("inf")]
NO_COUNT = [-1, 3_601, 0.5, "1", None, True]


def without(name: str, body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


async def send(client: httpx.AsyncClient, method: str, path: str, body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": "bad", "Content-Type": "application/json"}
    return await client.request(method, path, content=json.dumps(body), headers=headers)


async def all_refused(client: httpx.AsyncClient, method: str, path: str, valid: dict[str, Any], bad: Any) -> None:
    """Each value of each field of `bad`; the field left out if it is required; a field that nobody knows."""
    for field, values in bad.items():
        for value in values:
            problem = refused(await send(client, method, path, {**valid, field: value}), 422, "INVALID_INPUT")
            assert any(found["field"].startswith(field) for found in problem["context"]["fields"]), (field, value)
    for field in valid:
        refused(await send(client, method, path, without(field, valid)), 422, "INVALID_INPUT")
    for name in ("nobody", "tier_id", "cycleId", "tenantId", "\0", "\ud800", "x" * 5_000):
        problem = refused(await send(client, method, path, {**valid, name: 1}), 422, "INVALID_INPUT")
        assert len(problem["detail"]) < 1_000
    for whole in ([], [valid], "x", 5, None, True, {}):
        refused(await send(client, method, path, whole), 422, "INVALID_INPUT")


async def test_cycles(client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection) -> None:
    bad = {
        "tierId": NO_ID,
        "deceasedMemberId": NO_ID,
        "claimId": NO_ID[1:],
        "contributionAmount": NO_MONEY,
        "benefitAmount": NO_MONEY,
        "durationDays": NO_DURATION,
        "strategy": [None, "", "Queued", 5, [], "\ud800"],
        "priority": NO_COUNT,
    }
    async with unchanged(owner):
        await all_refused(client, "POST", CYCLES, start_of(society), bad)


async def test_tiers(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    code = [None, 5, [], "", "-a", "a b", "é", "x" * 21, "a\n", "a\0", "\ud800"]
    bad = {
        "code": code,
        "name": NO_TEXT,
        "contributionAmount": [*NO_MONEY, None],
        "benefitAmount": [*NO_MONEY, None],
    }
    async with unchanged(owner):
        await all_refused(client, "POST", "/api/tiers", TIER, bad)


async def test_agents(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    email = [5, "", "x", "@x", "x@", "a b@c", "a@b@c", "a\0@b", "a@\ud800", "x" * 250 + "@x.np"]
    async with unchanged(owner):
        bad = {"name": NO_TEXT, "email": email}
        await all_refused(client, "POST", "/api/agents", {"code": "NEW", "name": "New"}, bad)


async def test_users(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    new = {"email": "new@x.np", "name": "New", "role": "viewer"}
    role = [None, "Admin", "root", "", 5, []]
    async with unchanged(owner):
        bad = {"name": NO_TEXT, "email": [None, 5, "", "x", "a b@c", "a\0@b"], "role": role}
        await all_refused(client, "POST", "/api/users", new, bad)
        user = (await client.get("/api/users")).json()["items"][0]
        path = f"/api/users/{user['userId']}"
        bad = {"version": [None, 0, -1, 2**31, 1.5, "1", True], "name": NO_TEXT, "role": role}
        bad |= {"isActive": [None, 0, 1, "false", "no"], "email": ["new@x.np"], "userId": [UNKNOWN]}
        for field, values in bad.items():
            for value in values:
                body = {"version": 1, field: value}
                refused(await send(client, "PATCH", path, body), 422, "INVALID_INPUT")
        for expires_at in (
            "",
            "x",
            "2020-01-01",
            "2020-01-01T00:00:00Z",
            "2030-01-01T00:00:00",
            "9999-12-31T23:59:59Z",
        ):
            for call in (f"{path}/keys", f"/api/keys/{UNKNOWN}/rotate"):
                refused(await send(client, "POST", call, {"expiresAt": expires_at}), 422, "INVALID_INPUT")


async def test_changes_of_members(client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection) -> None:
    member = (await client.get("/api/members?status=Active&limit=1")).json()["items"][0]
    path = f"/api/members/{member['memberId']}"
    bad = {
        "version": [None, 0, -1, 2**31, 1.5, "1", True],
        "fullName": NO_TEXT,
        "gender": [None, "f", "X", 1],
        "status": [None, "active", "Dead", 1],
        "tierId": NO_ID,
        "agentId": NO_ID[1:],
        "phone": ["", "abc", "12", "+977\0981234", 977981234567, "9" * 30],
        "email": ["", "x", 5],
    }
    async with unchanged(owner):
        for field, values in bad.items():
            for value in values:
                body = {"version": 1, field: value}
                refused(await send(client, "PATCH", path, body), 422, "INVALID_INPUT")
        for body in ({"version": 1}, {"version": 1, "memberNumber": "X-1"}):
            refused(await send(client, "PATCH", path, body), 422, "INVALID_INPUT")
        for body, code in (({"tierId": UNKNOWN}, "TIER_NOT_FOUND"), ({"agentId": UNKNOWN}, "AGENT_NOT_FOUND")):
            refused(await send(client, "PATCH", path, {"version": 1, **body}), 404, code)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"{'tierId': 1}", 400),
        (b'{"tierId": }', 400),
        (b"\xff\xfe{}", 400),
        (b'{"tierId": "\xff"}', 400),
        (b"\0", 400),
        (b"[" * 200_000, 400),
        (b'{"tierId":' * 100_000, 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"tierId": ' + b"9" * 10_000 + b"}", 400),
        (b'{"code": 1} trailing', 400),
        (b'{"x":1,' * 3, 400),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_broken_json(client: httpx.AsyncClient, owner: asyncpg.Connection, content: bytes, status: int) -> None:
    headers = {"Idempotency-Key": "bad", "Content-Type": "application/json"}
    async with unchanged(owner):
        for path in (CYCLES, "/api/tiers"):
            refused(await client.post(path, content=content, headers=headers), status, "INVALID_INPUT")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "text/csv", "\xff", "json"])
async def test_another_content_type(client: httpx.AsyncClient, owner: asyncpg.Connection, kind: str) -> None:
    async with unchanged(owner):
        headers = {b"Content-Type": kind.encode("latin-1")}
        answer = await client.post("/api/tiers", content=json.dumps(TIER), headers=headers)
        assert "application/json" in refused(answer, 415, "INVALID_INPUT")["detail"]
        if kind != "text/csv":
            headers[b"Idempotency-Key"] = b"bad"
            answer = await client.post("/api/members/import", content="full_name,tier\nx,A\n", headers=headers)
            assert "text/csv" in refused(answer, 415, "INVALID_INPUT")["detail"]


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1.5", "limit=99999999999999999999"),
        *("after=", "after=x", f"after={UNKNOWN}", "after=" + "A" * 21, "after=" + "A" * 23, "after=%00", "after=A%3D"),
        *("after=" + "A" * 21 + "%C3%A9", "nobody=1", "tenantId=1", "limit[]=1", "Limit=1", "%FF=%FE", "%ED%A0%80=1"),
    ],
)
async def test_queries_of_lists(client: httpx.AsyncClient, query: str) -> None:
    for path in ("/api/tiers", "/api/agents", "/api/members", "/api/jobs", CYCLES):
        refused(await client.get(f"{path}?{query}"), 422, "INVALID_INPUT")


@pytest.mark.parametrize(
    "url",
    [
        *(f"{CYCLES}?status=active", f"{CYCLES}?status=", f"{CYCLES}?status=%00", "/api/jobs?state=queued"),
        *("/api/jobs?kind=", "/api/jobs?kind=%00", "/api/members?search=", "/api/members?search=%00"),
        *(
            "/api/members?status=Dead",
            "/api/members?tier=%00",
            "/api/members?tier=",
            f"/api/members?search={'x' * 101}",
        ),
    ],
)
async def test_filters(client: httpx.AsyncClient, url: str) -> None:
    refused(await client.get(url), 422, "INVALID_INPUT")


async def test_calls_without_parameters_refuse_any(
    client: httpx.AsyncClient, start: Start, owner: asyncpg.Connection, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    where, job = f"{CYCLES}/{cycle['cycleId']}", f"/api/jobs/{cycle['jobId']}"
    async with unchanged(owner):
        for method, path in (
            *(("GET", where), ("GET", f"{where}/creation-progress"), ("GET", f"{where}/creation-progress/stream")),
            *(("GET", f"{where}/contributions/{society.dead}"), ("GET", f"/api/members/{society.dead}")),
            *(("GET", job), ("POST", f"{job}/pause"), ("POST", f"{job}/cancel"), ("POST", "/api/tiers")),
            *(("POST", CYCLES), ("PATCH", f"/api/members/{society.dead}")),
        ):
            for query in ("x=1", "dryRun=true", "%FF"):
                answer = await send(client, method, f"{path}?{query}", TIER)
                refused(answer, 422, "INVALID_INPUT")
        headers = {"Idempotency-Key": "bad", "Content-Type": "text/csv"}
        for query in ("x=1", "dryRun=maybe", "dryRun=", "dryRun=2", "dry_run=true"):
            content = "full_name,tier\nx,A\n"
            answer = await client.post(f"/api/members/import?{query}", content=content, headers=headers)
            refused(answer, 422, "INVALID_INPUT")


@pytest.mark.parametrize(
    "made_up", ["x", "1", UNKNOWN + "0", "%00", "%FF", "..%2f", "'; DROP TABLE members", "x" * 5_000]
)
async def test_ids_in_paths(client: httpx.AsyncClient, made_up: str) -> None:
    for path in (f"{CYCLES}/{made_up}", f"/api/jobs/{made_up}", f"/api/members/{made_up}"):
        answer = await client.get(path)
        assert answer.status_code in (404, 422), path  # 404 where what was sent makes another path
        refused(answer, answer.status_code, answer.json()["code"])


async def test_forged_cursors_show_nothing_but_ones_own_rows(client: httpx.AsyncClient, start: Start) -> None:
    """A cursor is a place in an order, no right: one that was made up is just another place."""
    cycle = (await start()).json()
    for path in ("/api/tiers", "/api/members", "/api/jobs", CYCLES, f"/api/jobs/{cycle['jobId']}/log"):
        for cursor in ("A" * 22, "_" * 22, "x" * 22, "-" * 22):
            page = await client.get(path, params={"after": cursor})
            assert page.status_code == 200
            assert len(page.json()["items"]) <= 50


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"", 1, "header is missing"),
        (b"\n", 1, "header is missing"),
        (b"Ram,A\n", 1, "first line must name columns"),
        (b"full_name\nRam\n", 1, "are required"),
        (b"full_name,tier,shoe_size\n", 1, "shoe_size"),
        (b"full_name,tier,tier\n", 1, "first line must name columns"),
        (b"full_name,tier\0\n", 1, "NUL"),
        (b"\xff\xfef\0u\0l\0l\0", 1, "not UTF-8|NUL"),
        (b"full_name,tier\nRam,A\nR\xffm,A\n", 3, "not UTF-8"),
        (b'full_name,tier\nRam,A\n"Sita,A\nHari,A\n', 3, "quotes"),
        (b'full_name,tier\n"Ram"x,A\n', 2, "quotes"),
        (b"full_name,tier\nRam,A\nSi\0ta,A\n", 3, "NUL"),
        (b"full_name,tier\n" + b"x" * 150_000 + b",A\n", 2, "longer than"),
        (b'full_name,tier\n"' + b"x\n" * 80_000, 2, "quote left open"),
    ],
)
async def test_broken_csv(
    client: httpx.AsyncClient, owner: asyncpg.Connection, content: bytes, line: int, says: str
) -> None:
    headers = {"Idempotency-Key": "bad", "Content-Type": "text/csv"}
    async with unchanged(owner):
        answer = await client.post("/api/members/import", content=content, headers=headers)
        problem = refused(answer, 422, "INVALID_INPUT")
        assert problem["context"] == {"line": line}
        assert any(part in problem["detail"] for part in says.split("|")), problem["detail"]
