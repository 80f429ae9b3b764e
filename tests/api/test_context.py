"""Who may do what: keys, roles and users, read anew with every request."""

import re
from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.context import permission_of
from core.settings import Settings
from domain.members import STEPS
from domain.roles import MEANING, PERMISSIONS, Permission, Role
from tests.api.conftest import client_of
from tests.api.expect import UNKNOWN, opened, refused, start_of, unchanged
from tests.support import Society

CYCLES = "/api/contribution-cycles"
BODIES = {
    "POST /api/tiers": {"code": "Z", "name": "Z", "contributionAmount": "1", "benefitAmount": "1"},
    "POST /api/agents": {"code": "Z", "name": "Z"},
    "POST /api/users": {"email": "z@x.np", "name": "Z", "role": "viewer"},
    "POST /api/members": {"fullName": "Z", "gender": "O", "tierId": UNKNOWN},
    **{f"POST /api/members/{UNKNOWN}/{step}": {"version": 1, "reason": "Z"} for step in STEPS},
    f"PATCH /api/members/{UNKNOWN}": {"version": 1, "status": "Inactive"},
    f"PATCH /api/users/{UNKNOWN}": {"version": 1, "isActive": False},
    f"PATCH /api/tiers/{UNKNOWN}": {"version": 1, "name": "Z"},
    f"PATCH /api/agents/{UNKNOWN}": {"version": 1, "name": "Z"},
    **{f"POST {CYCLES}{tail}": {"tierId": UNKNOWN, "deceasedMemberId": UNKNOWN} for tail in ("", "/preview")},
}
ROUTES = [
    route
    for route in create_app(Settings(_env_file=None, database_url="postgresql://nowhere")).state.routes
    if route.path.startswith("/api/") and route.include_in_schema
]
CALLS = [(method, re.sub("{.*?}", UNKNOWN, route.path)) for route in ROUTES for method in route.methods]
ENDLESS = ("/api/jobs/stream", "/api/events/stream", "/api/notices/stream")
ASKED = dict(zip(CALLS, map(permission_of, ROUTES), strict=True))
WRITES = [call for call in CALLS if call[0] != "GET"]


async def call(client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    if path in ENDLESS:
        return await opened(client, path)
    headers = {"Idempotency-Key": "k"} if method == "POST" else {}
    if path.endswith("/import"):
        return await client.post(path, content="full_name,tier\n", headers={**headers, "Content-Type": "text/csv"})
    return await client.request(method, path, json=BODIES.get(f"{method} {path}"), headers=headers)


def test_every_call_has_a_guard_and_every_permission_a_call() -> None:
    assert {permission for permission in ASKED.values() if permission} == set(Permission)
    assert [call for call, permission in ASKED.items() if permission is None] == []
    assert {call for call, permission in ASKED.items() if permission is Permission.VIEW} == {
        (method, path) for method, path in CALLS if method == "GET" and path not in OF_ADMINS
    }


OF_ADMINS = ("/api/users", f"/api/users/{UNKNOWN}", "/api/keys", "/api/audit", "/api/events", "/api/events/stream")


async def test_the_table_and_the_database_know_the_same_roles(owner: asyncpg.Connection) -> None:
    check = await owner.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'users_role_check'"
    )
    assert set(re.findall("'([a-z]+)'", check)) == set(Role) == set(PERMISSIONS) == set(MEANING)


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_do_what_the_table_says_and_nothing_else(
    app: FastAPI, owner: asyncpg.Connection, key_for: Callable[[str], Awaitable[str]], role: Role
) -> None:
    key = await key_for(role)
    async with client_of(app, key) as client:
        for (method, path), permission in ASKED.items():
            assert permission
            if permission in PERMISSIONS[role]:
                assert (await call(client, method, path)).status_code in (200, 201, 202, 404, 422), (method, path)
            else:
                problem = refused(await call(client, method, path), 403, "INSUFFICIENT_PERMISSIONS")
                assert problem["context"] == {"role": role, "permission": permission.name}


async def test_who_may_only_look_changes_nothing(
    app: FastAPI, owner: asyncpg.Connection, key_for: Callable[[str], Awaitable[str]]
) -> None:
    async with client_of(app, await key_for("viewer")) as client, unchanged(owner):
        for method, path in CALLS:
            await call(client, method, path)


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_no_call_works_without_a_key(
    client: httpx.AsyncClient, owner: asyncpg.Connection, method: str, path: str
) -> None:
    del client.headers["Authorization"]
    async with unchanged(owner):
        answer = await call(client, method, path)
        refused(answer, 401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"


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


@pytest.mark.parametrize(
    ("change", "code"),
    [("revoked_at = now()", "UNAUTHORIZED"), ("expires_at = now() - interval '1 second'", "SESSION_EXPIRED")],
)
async def test_a_revoked_or_expired_key_opens_nothing(
    client: httpx.AsyncClient, owner: asyncpg.Connection, change: str, code: str
) -> None:
    await owner.execute("UPDATE api_keys SET expires_at = now() + interval '1 hour'")
    assert (await client.get("/api/tiers")).status_code == 200
    await owner.execute(f"UPDATE api_keys SET {change}")
    refused(await client.get("/api/tiers"), 401, code)
    client.headers["Authorization"] = client.headers["Authorization"][:-1] + "x"
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
