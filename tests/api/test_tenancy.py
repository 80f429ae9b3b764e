"""Two tenants: whatever one of them asks, nothing of the other's is seen, told or changed."""

from typing import Any

import asyncpg
import httpx
import pytest

from core.settings import Settings
from tests.api.conftest import Start
from tests.api.expect import refused, start_of, unchanged
from tests.support import Society

CYCLES = "/api/contribution-cycles"


@pytest.fixture
async def ours(client: httpx.AsyncClient, start: Start, society: Society) -> dict[str, str]:
    """One id of everything that the first tenant has; a cycle, a queued one, an import."""
    cycle = (await start()).json()
    queued = (await start(strategy="queued")).json()
    headers = {"Idempotency-Key": "import", "Content-Type": "text/csv"}
    imported = await client.post("/api/members/import", content="full_name,tier\nx,A\n", headers=headers)
    members = (await client.get("/api/members?status=Active&limit=1")).json()["items"]
    agents = (await client.get("/api/agents")).json()["items"]
    return {
        "cycle": cycle["cycleId"],
        "queued": queued["cycleId"],
        "job": queued["jobId"],
        "import": imported.json()["jobId"],
        "member": members[0]["memberId"],
        "agent": agents[0]["agentId"],
        "tier": str(society.tier_id),
        "dead": str(society.dead),
        "user": str(society.user_id),
        "key": (await client.get("/api/keys")).json()["items"][0]["keyId"],
    }


async def test_anothers_ids_are_not_found_whatever_is_asked(
    stranger: httpx.AsyncClient, ours: dict[str, str], other: Society, owner: asyncpg.Connection
) -> None:
    async with unchanged(owner):
        for cycle in (ours["cycle"], ours["queued"]):
            for tail in ("", "/creation-progress", "/creation-progress/stream", "/contributions", "/events"):
                refused(await stranger.get(f"{CYCLES}/{cycle}{tail}"), 404, "CYCLE_NOT_FOUND")
            one = await stranger.get(f"{CYCLES}/{cycle}/contributions/{ours['member']}")
            refused(one, 404, "CYCLE_NOT_FOUND")
        for job in (ours["job"], ours["import"]):
            for tail in ("", "/log", "/rates", "/stream"):
                refused(await stranger.get(f"/api/jobs/{job}{tail}"), 404, "JOB_NOT_FOUND")
            for verb in ("pause", "resume", "cancel", "retry"):
                refused(await stranger.post(f"/api/jobs/{job}/{verb}"), 404, "JOB_NOT_FOUND")
        for thing in ("tier", "agent", "user"):
            path, code = f"/api/{thing}s/{ours[thing]}", f"{thing.upper()}_NOT_FOUND"
            refused(await stranger.get(path), 404, code)
            refused(await stranger.patch(path, json={"version": 1, "name": "x"}), 404, code)
        refused(await stranger.post(f"/api/users/{ours['user']}/keys"), 404, "USER_NOT_FOUND")
        refused(await stranger.post(f"/api/keys/{ours['key']}/rotate"), 404, "KEY_NOT_FOUND")
        refused(await stranger.delete(f"/api/keys/{ours['key']}"), 404, "KEY_NOT_FOUND")
        member = f"/api/members/{ours['member']}"
        refused(await stranger.get(member), 404, "MEMBER_NOT_FOUND")
        refused(await stranger.patch(member, json={"version": 1, "status": "Inactive"}), 404, "MEMBER_NOT_FOUND")


async def test_anothers_ids_cannot_be_used_in_bodies(
    stranger: httpx.AsyncClient, ours: dict[str, str], other: Society, owner: asyncpg.Connection
) -> None:
    own = (await stranger.get("/api/members?status=Active&limit=1")).json()["items"][0]["memberId"]
    async with unchanged(owner):
        for changes, code in (
            ({"tierId": ours["tier"]}, "TIER_NOT_FOUND"),
            ({"deceasedMemberId": ours["dead"]}, "MEMBER_NOT_FOUND"),
        ):
            headers = {"Idempotency-Key": "theirs"}
            refused(await stranger.post(CYCLES, json=start_of(other, **changes), headers=headers), 404, code)
        for name, code in (("tier", "TIER_NOT_FOUND"), ("agent", "AGENT_NOT_FOUND")):
            body = {"version": 1, f"{name}Id": ours[name]}
            refused(await stranger.patch(f"/api/members/{own}", json=body), 404, code)


async def test_lists_hold_only_ones_own(stranger: httpx.AsyncClient, ours: dict[str, str], other: Society) -> None:
    async def items(path: str) -> list[Any]:
        found: list[Any] = (await stranger.get(path)).json()["items"]
        return found

    assert await items(CYCLES) == await items("/api/jobs") == []
    assert [tier["tierId"] for tier in await items("/api/tiers")] == [str(other.tier_id)]
    assert len(await items("/api/agents")) == 2
    assert len(await items("/api/users")) == len(await items("/api/keys")) == 1
    assert len(await items("/api/members")) == 4
    assert await items("/api/members?search=OLD-50") == []


async def test_the_same_codes_and_numbers_may_exist_in_both(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    agent = {"code": "SAME", "name": "Same"}
    for either in (client, stranger):
        assert (await either.post("/api/agents", json=agent)).status_code == 201
        refused(await either.post("/api/agents", json=agent), 409, "DUPLICATE_RESOURCE")


TENANT_TABLES = """
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, EXISTS (
    SELECT FROM pg_policy WHERE polrelid = c.oid
) AS has_policy, c.relispartition
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
ORDER BY c.relname
"""


async def test_every_tenant_table_forces_row_level_security(owner: asyncpg.Connection) -> None:
    tables = await owner.fetch(TENANT_TABLES)
    assert len(tables) >= 16
    for table in tables:
        guarded = table["relrowsecurity"] and table["relforcerowsecurity"] and table["has_policy"]
        assert guarded, f"{table['relname']} is open"
    leaders = await owner.fetch(
        """
        SELECT i.indexrelid::regclass::text AS name FROM pg_index AS i
        JOIN pg_class AS t ON t.oid = i.indrelid
        JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
        WHERE t.relnamespace = 'public'::regnamespace AND a.attname <> 'tenant_id'
          AND EXISTS (SELECT FROM pg_attribute AS o WHERE o.attrelid = t.oid AND o.attname = 'tenant_id')
        """
    )
    assert [row["name"] for row in leaders] == ["api_keys_key_id"]  # a key comes before its tenant is known
    views = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace"
        " AND NOT coalesce('security_invoker=true' = any(reloptions), false)"
    )
    assert views == []


async def test_the_app_sees_only_the_rows_of_the_tenant_that_is_set(
    ours: dict[str, str], other: Society, society: Society, settings: Settings, owner: asyncpg.Connection
) -> None:
    app = await asyncpg.connect(settings.database_url)
    try:
        for table in await owner.fetch(TENANT_TABLES):
            name = table["relname"]
            if table["relispartition"]:  # reached through their parent only
                assert not await owner.fetchval("SELECT has_table_privilege('guthi_app', $1, 'SELECT')", name)
                continue
            assert await app.fetchval(f"SELECT count(*) FROM {name}") == 0, f"{name} without a tenant"
            for tenant in (society.tenant_id, other.tenant_id):
                async with app.transaction():
                    await app.execute("SELECT set_tenant($1)", tenant)
                    seen = await app.fetch(f"SELECT tenant_id, count(*) FROM {name} GROUP BY 1")
                stands = await owner.fetch(
                    f"SELECT tenant_id, count(*) FROM {name} WHERE tenant_id = $1 GROUP BY 1", tenant
                )
                assert seen == stands, name
            assert await app.fetchval(f"SELECT count(*) FROM {name}") == 0, f"{name} after a transaction"
    finally:
        await app.close()


async def test_the_app_cannot_write_for_another_tenant(
    society: Society, other: Society, settings: Settings, owner: asyncpg.Connection
) -> None:
    app = await asyncpg.connect(settings.database_url)
    try:
        for tenant in (None, other.tenant_id):
            for statement in (
                "INSERT INTO agents (tenant_id, code, name) VALUES ($1, 'X', 'X')",
                "INSERT INTO counters (tenant_id, name) VALUES ($1, 'X')",
                "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)"
                " VALUES ($1, uuidv7(), uuidv7(), 1, '2030-01-01')",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with app.transaction():
                        if tenant:
                            await app.execute("SELECT set_tenant($1)", tenant)
                        await app.execute(statement, society.tenant_id)
        async with app.transaction():
            await app.execute("SELECT set_tenant($1)", other.tenant_id)
            changed = await app.execute("UPDATE members SET full_name = 'x' WHERE tenant_id = $1", society.tenant_id)
            assert changed == "UPDATE 0"
        for statement in ("TRUNCATE members", "DELETE FROM members", "ALTER TABLE members DISABLE ROW LEVEL SECURITY"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(statement)
    finally:
        await app.close()
