"""What the audit trigger writes, and what it never does."""

from typing import Any

import asyncpg
import orjson
import pytest

from db.database import Actor, acting_as
from domain.api_keys import new_api_key
from domain.counters import next_code
from jobs.engine.engine import Engine
from tests.support import Society

AUDITED = "SELECT DISTINCT tgrelid::regclass::text AS name FROM pg_trigger WHERE tgname = 'audit_update' ORDER BY 1"


async def newest(owner: asyncpg.Connection, table: str, number: int = 1) -> list[dict[str, Any]]:
    rows = await owner.fetch(
        "SELECT * FROM audit_log WHERE table_name = $1 ORDER BY entry_id DESC LIMIT $2", table, number
    )
    return [
        {**row, **{name: orjson.loads(row[name] or "null") for name in ("old_values", "new_values")}} for row in rows
    ]


async def test_the_tables_that_people_change_are_in_it(owner: asyncpg.Connection) -> None:
    names = {row["name"] for row in await owner.fetch(AUDITED)}
    wanted = {"tenants", "users", "api_keys", "tiers", "agents", "members", "contribution_cycles", "batch_jobs"}
    assert names >= wanted | {"counters", "tier_memberships"}
    assert not names & {"contributions", "batch_job_shards", "batch_job_log", "member_import_rows", "events"}


async def test_no_column_of_an_audited_table_could_tell_a_secret(owner: asyncpg.Connection) -> None:
    """Secrets here are bytes, and what is named like one. A new one that is neither needs a word in audit_hides()."""
    open_ones = await owner.fetch(
        "SELECT attrelid::regclass::text || '.' || attname FROM pg_attribute"
        " WHERE attrelid = any($1::text[]::regclass[]) AND attnum > 0 AND NOT audit_hides(attname)"
        " AND (atttypid = 'bytea'::regtype OR attname ~ '(secret|password|hash|token|sha|key$)')",
        [row["name"] for row in await owner.fetch(AUDITED)],
    )
    assert open_ones == []
    hidden = "SELECT bool_and(audit_hides(name)) FROM unnest($1::text[]) AS name"
    assert await owner.fetchval(hidden, ["secret_sha256", "password_hash", "refresh_token", "private_key", "salt"])
    assert not await owner.fetchval("SELECT bool_or(audit_hides(n)) FROM unnest($1::text[]) AS n", ["email", "key_id"])


async def test_a_new_key_and_a_rotated_one_leave_no_trace_of_the_secret(
    owner: asyncpg.Connection, society: Society
) -> None:
    key = (await new_api_key(owner, society.tenant_id, society.user_id)).api_key
    await owner.execute("UPDATE api_keys SET secret_sha256 = sha256('other')")
    assert [e["operation"] for e in await newest(owner, "api_keys", 2)] == ["UPDATE", "UPDATE"]
    for secret in (key.split("_")[2], society.api_key.split("_")[2], "secret_sha256"):
        assert await owner.fetchval("SELECT count(*) FROM audit_log AS a WHERE a::text LIKE $1", f"%{secret}%") == 0
    hashes = await owner.fetch("SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')", key.split("_")[2])
    assert await owner.fetchval("SELECT count(*) FROM audit_log AS a WHERE a::text LIKE $1", f"%{hashes[0][0]}%") == 0


async def test_every_row_of_a_large_change_by_hand_keeps_its_old_values(
    owner: asyncpg.Connection, society: Society
) -> None:
    await owner.execute("UPDATE members SET status = 'Inactive' WHERE status = 'Active'")
    entries = await newest(owner, "members", 1_000)
    assert [e["operation"] for e in entries] == ["UPDATE"] * 100 + ["INSERT"]
    assert {(e["old_values"]["status"], e["new_values"]["status"]) for e in entries[:100]} == {("Active", "Inactive")}
    assert len({e["record_id"] for e in entries[:100]}) == 100
    assert (entries[100]["row_count"], entries[100]["database_role"]) == (101, "guthi_owner")
    assert {(e["user_id"], e["job"], e["database_role"]) for e in entries} == {(None, None, "guthi_owner")}


async def test_what_changed_nothing_is_no_entry_and_a_deleted_row_is_kept_whole(
    owner: asyncpg.Connection, society: Society
) -> None:
    before = await owner.fetchval("SELECT count(*) FROM audit_log")
    await owner.execute("UPDATE members SET full_name = 'x' WHERE false")
    await owner.execute("UPDATE tenants SET name = name")
    assert await owner.fetchval("SELECT count(*) FROM audit_log") == before
    await owner.execute("DELETE FROM agents WHERE code = 'AG1' AND false")
    await owner.execute("INSERT INTO agents (tenant_id, code, name) VALUES ($1, 'Z', 'Zed')", society.tenant_id)
    await owner.execute("DELETE FROM agents WHERE code = 'Z'")
    (gone,) = await newest(owner, "agents")
    assert (gone["operation"], gone["new_values"], gone["old_values"]["name"]) == ("DELETE", None, "Zed")


async def test_a_key_of_several_columns_and_a_changed_key(owner: asyncpg.Connection, society: Society) -> None:
    await owner.execute(
        "UPDATE tier_memberships SET valid_to = 'infinity'"
        " WHERE member_id = (SELECT min(member_id::text) FROM tier_memberships)::uuid"
    )
    (closed,) = await newest(owner, "tier_memberships")
    assert closed["record_id"].startswith(f"{society.tier_id} ") and closed["old_values"] == {"valid_to": None}
    await owner.execute("INSERT INTO counters (tenant_id, name) VALUES ($1, 'A')", society.tenant_id)
    await owner.execute("UPDATE counters SET name = 'B' WHERE name = 'A'")
    (renamed,) = await newest(owner, "counters")
    assert (renamed["record_id"], renamed["old_values"], renamed["new_values"]) == ("B", {"name": "A"}, {"name": "B"})
    await owner.execute("INSERT INTO counters (tenant_id, name) VALUES ($1, 'C')", society.tenant_id)
    await owner.execute("UPDATE counters SET name = name || '2'")
    entries = await newest(owner, "counters", 4)
    assert {(e["record_id"], e["old_values"] is None) for e in entries} == {
        (name, name.endswith("2")) for name in ("B", "B2", "C", "C2")
    }


async def test_a_counter_is_audited_by_hand_alone(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    with acting_as(Actor(user_id=society.user_id)):
        async with engine.database.transaction(society.tenant_id) as tx:
            await next_code(tx, "CC-2025", 5)
    assert await newest(owner, "counters") == []
    await owner.execute("UPDATE counters SET value = 7")
    (entry,) = await newest(owner, "counters")
    assert (entry["old_values"], entry["new_values"]) == ({"value": 1}, {"value": 7})


@pytest.mark.parametrize(
    "nasty", ["'; DROP TABLE members; --", "\\'; SELECT 1; --", "$$", "é\u2028\\", 'a"b\n\x00', "E'"]
)
async def test_who_acts_is_quoted_safely(
    engine: Engine, owner: asyncpg.Connection, society: Society, nasty: str
) -> None:
    with acting_as(Actor(address=nasty.replace("\x00", ""))):
        for strings in ("on", "off"):
            async with engine.database.transaction(society.tenant_id) as tx:
                await tx.connection.execute(f"SET LOCAL standard_conforming_strings = {strings}")
                await tx.connection.execute(
                    f"SET LOCAL app.actor = {Actor(address=nasty.replace(chr(0), '')).setting()}"
                )
                await tx.connection.execute("UPDATE tiers SET name = name || 'x'")
            (entry,) = await newest(owner, "tiers")
            assert entry["address"] == nasty.replace("\x00", "")


async def test_who_acts_ends_with_the_transaction(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    with acting_as(Actor(user_id=society.user_id, request_id="r")):
        async with engine.database.transaction(society.tenant_id) as tx:
            await tx.connection.execute("UPDATE tiers SET name = 'a'")
    async with engine.database.transaction(society.tenant_id) as tx:
        await tx.connection.execute("UPDATE tiers SET name = 'b'")
    later, sooner = await newest(owner, "tiers", 2)
    assert (sooner["user_id"], sooner["request_id"]) == (society.user_id, "r")
    assert (later["user_id"], later["request_id"]) == (None, None)
