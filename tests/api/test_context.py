"""Who may do what: keys, roles and users, read anew with every request."""

from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from tests.api.conftest import client_of
from tests.api.expect import UNKNOWN, refused, start_of, unchanged
from tests.support import Society

CYCLES = "/api/contribution-cycles"
READS = [
    *("/api/tiers", "/api/agents", "/api/members", f"/api/members/{UNKNOWN}", "/api/jobs", f"/api/jobs/{UNKNOWN}"),
    *(f"/api/jobs/{UNKNOWN}/log", CYCLES, f"{CYCLES}/{UNKNOWN}", f"{CYCLES}/{UNKNOWN}/creation-progress"),
    *(f"{CYCLES}/{UNKNOWN}/creation-progress/stream", f"{CYCLES}/{UNKNOWN}/contributions"),
    f"{CYCLES}/{UNKNOWN}/contributions/{UNKNOWN}",
]
WRITES = [
    *(("POST", "/api/tiers"), ("POST", "/api/agents"), ("PATCH", f"/api/members/{UNKNOWN}"), ("POST", CYCLES)),
    ("POST", "/api/members/import"),
    *(("POST", f"/api/jobs/{UNKNOWN}/{verb}") for verb in ("pause", "resume", "cancel", "retry")),
]
CALLS = [*(("GET", path) for path in READS), *WRITES]
BODIES = {
    "/api/tiers": {"code": "Z", "name": "Z", "contributionAmount": "1", "benefitAmount": "1"},
    "/api/agents": {"code": "Z", "name": "Z"},
    f"/api/members/{UNKNOWN}": {"version": 1, "status": "Inactive"},
    CYCLES: {"tierId": UNKNOWN, "deceasedMemberId": UNKNOWN},
}


async def call(client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    headers = {"Idempotency-Key": "k"} if method == "POST" else {}
    if path.endswith("/import"):
        return await client.post(path, content="full_name,tier\n", headers={**headers, "Content-Type": "text/csv"})
    body = BODIES.get(path) if method in ("POST", "PATCH") else None
    return await client.request(method, path, json=body, headers=headers)


def test_every_documented_call_is_tried(app: FastAPI) -> None:
    documented = {
        (method.upper(), path.replace("{", "").replace("}", "").replace("cycle_id", UNKNOWN))
        for path, calls in app.openapi()["paths"].items()
        for method in calls
        if path.startswith("/api/")
    }
    tried = {(method, path) for method, path in CALLS}
    assert {(m, p.replace("job_id", UNKNOWN).replace("member_id", UNKNOWN)) for m, p in documented} == tried


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_no_call_works_without_a_key(
    client: httpx.AsyncClient, owner: asyncpg.Connection, method: str, path: str
) -> None:
    del client.headers["Authorization"]
    async with unchanged(owner):
        answer = await call(client, method, path)
        refused(answer, 401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", ["viewer", "agent", "assessor", "approver"])
async def test_who_may_only_look_changes_nothing(
    app: FastAPI, owner: asyncpg.Connection, key_for: Callable[[str], Awaitable[str]], role: str
) -> None:
    async with client_of(app, await key_for(role)) as client, unchanged(owner):
        for method, path in WRITES:
            refused(await call(client, method, path), 403, "INSUFFICIENT_PERMISSIONS")
        for path in READS:
            assert (await client.get(path)).status_code in (200, 404)


async def test_an_operator_may_write(app: FastAPI, key_for: Callable[[str], Awaitable[str]]) -> None:
    async with client_of(app, await key_for("operator")) as client:
        assert (await call(client, "POST", "/api/agents")).status_code == 201


async def test_a_deactivated_user_is_refused_at_the_next_request(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    assert (await client.get("/api/tiers")).status_code == 200
    await owner.execute("UPDATE users SET is_active = false WHERE user_id = $1", society.user_id)
    async with unchanged(owner):
        for method, path in CALLS:
            refused(await call(client, method, path), 403, "USER_INACTIVE")
    await owner.execute("UPDATE users SET is_active = true WHERE user_id = $1", society.user_id)
    assert (await client.get("/api/tiers")).status_code == 200


@pytest.mark.parametrize("change", ["revoked_at = now()", "expires_at = now() - interval '1 second'"])
async def test_a_revoked_or_expired_key_opens_nothing(
    client: httpx.AsyncClient, owner: asyncpg.Connection, change: str
) -> None:
    await owner.execute("UPDATE api_keys SET expires_at = now() + interval '1 hour'")
    assert (await client.get("/api/tiers")).status_code == 200
    await owner.execute(f"UPDATE api_keys SET {change}")
    refused(await client.get("/api/tiers"), 401, "UNAUTHORIZED")


async def test_only_the_whole_right_key_opens(client: httpx.AsyncClient, society: Society, other: Society) -> None:
    key = society.api_key
    _, key_id, secret = key.split("_")
    wrong = [
        *("", " ", "x", key[:-1], key + "0", key + "\n0", key.upper(), key[6:], f"guthi_{key_id}_", f"guthi_{key_id}"),
        f"guthi_{key_id}_{'0' * 64}",
        f"guthi_{'0' * 32}_{secret}",
        f"guthi_{key_id}_{other.api_key.split('_')[2]}",
        f"{key} {key}",
        "guthi_" + "é" * 32 + "_" + secret,
        "x" * 60_000,
    ]
    for bad in [f"Bearer {key}".encode() for key in wrong] + [
        *(b"", b"Bearer", b"bearer", key.encode(), f"Basic {key}".encode(), f"Token {key}".encode(), b"\xff\xfe"),
        f"Bearer\t{key}".encode(),
    ]:
        refused(await client.get("/api/tiers", headers={b"Authorization": bad}), 401, "UNAUTHORIZED")
    for good in (f"Bearer {key}", f"bearer {key}"):
        assert (await client.get("/api/tiers", headers={"Authorization": good})).status_code == 200


async def test_a_key_counts_for_its_own_tenant(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, society: Society, other: Society
) -> None:
    start = {"Idempotency-Key": "1"}
    refused(await stranger.post(CYCLES, json=start_of(society), headers=start), 404, "TIER_NOT_FOUND")
    assert (await stranger.post(CYCLES, json=start_of(other), headers=start)).status_code == 201
    assert (await client.get(CYCLES)).json()["items"] == []
