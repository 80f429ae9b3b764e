"""The audit log's chains: whatever is done to what was chained, `guthi audit verify` says it and where."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core.settings import Settings
from jobs.engine.engine import Engine
from jobs.invariants import AUDIT, Broken, broken_invariants
from jobs.maintenance import run_maintenance
from tests.conftest import Servers
from tests.shell import Shell
from tests.support import Society, make_society

ENTRIES = 10


@pytest.fixture
async def chained(engine: Engine, society: Society) -> Society:
    """A society whose chain has some more entries than the fixture made."""
    for n in range(ENTRIES):
        await rename(engine, society, f"Tier {n}")
    assert await run_maintenance(engine, "chain_audit") == {"chains": 1}
    return society


@pytest.fixture
async def superuser(servers: Servers, settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    name = settings.database_url.split("?")[0].rsplit("/", 1)[1]
    connection = await asyncpg.connect(servers.postgres.superuser_url, database=name)
    yield connection
    await connection.close()


async def rename(engine: Engine, society: Society, name: str) -> None:
    async with engine.database.transaction(society.tenant_id) as tx:
        await tx.connection.execute("UPDATE tiers SET name = $1 WHERE tier_id = $2", name, society.tier_id)


async def found(owner: asyncpg.Connection) -> list[str]:
    broken: list[Broken] = await broken_invariants(owner, names=(AUDIT,))
    return [f"{each.subject.split(', ')[1]}: {each.detail}" for each in broken]


async def length(owner: asyncpg.Connection) -> int:
    count: int = await owner.fetchval("SELECT max(position) FROM audit_log")
    return count


async def test_untouched_it_holds_and_a_second_run_adds_nothing(
    engine: Engine, owner: asyncpg.Connection, chained: Society
) -> None:
    assert await found(owner) == []
    assert await run_maintenance(engine, "chain_audit") == {"chains": 0}
    other = await make_society(owner, members=3, prefix="OTH")
    await rename(engine, chained, "more")
    assert await run_maintenance(engine, "chain_audit") == {"chains": 2}
    assert await found(owner) == []
    ends = await owner.fetch("SELECT tenant_id, position FROM audit_heads")
    counts = await owner.fetch("SELECT tenant_id, count(*) FROM audit_log GROUP BY 1")
    assert {tuple(row) for row in ends} == {tuple(row) for row in counts}
    assert other.tenant_id in {row[0] for row in ends}


@pytest.mark.parametrize(
    "change",
    [
        'new_values = \'{"name": "x"}\'',
        "old_values = old_values - 'name'",
        "user_id = uuidv7()",
        "request_id = 'x'",
        "record_id = 'x'",
        "operation = 'DELETE'",
        "job = 'create_contributions x'",
        "database_role = 'guthi_app '",
        "row_count = 2",
        "hash = sha256(hash)",
    ],
)
async def test_a_changed_entry_is_named(superuser: asyncpg.Connection, chained: Society, change: str) -> None:
    entry_id = await superuser.fetchval(f"UPDATE audit_log SET {change} WHERE position = 12 RETURNING entry_id")
    says = await found(superuser)
    assert says[0] == f"position 12: entry {entry_id}, or the hash before it, is not what was chained"
    assert len(says) == (2 if "hash" in change else 1)


async def test_a_changed_entry_with_a_new_hash_shows_in_the_next(
    superuser: asyncpg.Connection, chained: Society
) -> None:
    for position in (5, await length(superuser)):
        async with superuser.transaction() as tx:  # noqa: F841
            await superuser.execute("UPDATE audit_log SET job = 'x' WHERE position = $1", position)
            await superuser.execute(
                "UPDATE audit_log AS a SET hash = audit_hash(b.hash, a.position, a) FROM audit_log AS b"
                " WHERE a.position = $1 AND b.position = $1 - 1",
                position,
            )
    says = await found(superuser)
    assert [each.split(":")[0] for each in says] == ["position 6", "end"]
    assert f"position {position} does not have the hash that was chained last" in says[1]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("position = 5", ["position 6: positions 5 to 5 are missing before entry"]),
        ("position IN (5, 6, 9)", ["position 7: positions 5 to 6", "position 10: positions 9 to 9"]),
        ("position <= 2", ["position 3: positions 1 to 2 are missing before entry"]),
        ("position > {end} - 2", ["end: positions {last} to {end} are missing at the end"]),
        ("true", ["end: positions 1 to {end} are missing at the end"]),
    ],
)
async def test_deleted_entries_are_counted(
    superuser: asyncpg.Connection, chained: Society, gone: str, said: list[str]
) -> None:
    end = await length(superuser)
    await superuser.execute("DELETE FROM audit_log WHERE " + gone.format(end=end))
    says = await found(superuser)
    assert len(says) == len(said)
    for line, part in zip(says, said, strict=True):
        assert line.startswith(part.format(end=end, last=end - 1))


async def insert(superuser: asyncpg.Connection, society: Society, position: int) -> Any:
    return await superuser.fetchval(
        "INSERT INTO audit_log (tenant_id, table_name, operation, row_count, database_role, position, hash)"
        " VALUES ($1, 'users', 'UPDATE', 1, 'guthi_app', $2, sha256('x')) RETURNING entry_id",
        society.tenant_id,
        position,
    )


async def test_an_inserted_entry_is_named(superuser: asyncpg.Connection, chained: Society) -> None:
    entry_id = await insert(superuser, chained, 5)
    says = await found(superuser)
    assert f"position 5: entry {entry_id} was put into a place that is taken" in says


async def test_an_entry_after_the_end_is_named(superuser: asyncpg.Connection, chained: Society) -> None:
    end = await length(superuser)
    await insert(superuser, chained, end + 1)
    says = await found(superuser)
    assert says[-1] == f"end: positions {end + 1} to {end + 1} were put in after the end"


async def test_exchanged_places_are_named(superuser: asyncpg.Connection, chained: Society) -> None:
    await superuser.execute("UPDATE audit_log SET position = 9 - position WHERE position IN (4, 5)")
    says = await found(superuser)
    assert [each.split(":")[0] for each in says] == ["position 4", "position 5", "position 6"]
    await superuser.execute("UPDATE audit_log SET position = 9 - position WHERE position IN (4, 5)")
    assert await found(superuser) == []


async def test_an_entry_that_is_taken_out_of_the_chain_and_chained_anew_leaves_a_gap(
    engine: Engine, superuser: asyncpg.Connection, chained: Society
) -> None:
    await superuser.execute("UPDATE audit_log SET position = NULL, hash = NULL, job = 'x' WHERE position = 5")
    await run_maintenance(engine, "chain_audit")
    (says,) = await found(superuser)
    assert says.startswith("position 6: positions 5 to 5 are missing")


@pytest.mark.parametrize("how", ["position = position - 1", "hash = sha256(hash)", None])
async def test_a_changed_end_is_named(superuser: asyncpg.Connection, chained: Society, how: str | None) -> None:
    await superuser.execute(f"UPDATE audit_heads SET {how}" if how else "DELETE FROM audit_heads")
    (says,) = await found(superuser)
    assert says.startswith("end: ")


async def test_what_commits_late_is_chained_later_and_the_chain_holds(
    engine: Engine, owner: asyncpg.Connection, chained: Society
) -> None:
    before = await length(owner)
    async with engine.database.transaction(chained.tenant_id) as late:
        await late.connection.execute(
            "INSERT INTO agents (tenant_id, code, name) VALUES ($1, 'L', 'Late')", late.tenant_id
        )
        await rename(engine, chained, "sooner")
        await run_maintenance(engine, "chain_audit")
        assert (await length(owner), await found(owner)) == (before + 1, [])
    await run_maintenance(engine, "chain_audit")
    assert (await length(owner), await found(owner)) == (before + 2, [])
    late_one, sooner = await owner.fetch(
        "SELECT table_name, position FROM audit_log WHERE position > $1 ORDER BY entry_id", before
    )
    assert (tuple(late_one), tuple(sooner)) == (("agents", before + 2), ("tiers", before + 1))


async def test_many_writers_and_chainers_at_once(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    async def write(n: int) -> None:
        async with engine.database.transaction(society.tenant_id) as tx:
            await tx.connection.execute(
                "INSERT INTO agents (tenant_id, code, name) VALUES ($1, $2, 'x')", tx.tenant_id, f"W{n}"
            )

    chains = (run_maintenance(engine, "chain_audit") for _ in range(5))
    await asyncio.gather(*(write(n) for n in range(50)), *chains)
    await run_maintenance(engine, "chain_audit")
    assert await owner.fetchval("SELECT count(*) FROM audit_log WHERE position IS NULL") == 0
    assert await found(owner) == []


async def test_a_month_has_a_chain_of_its_own_and_its_late_rows_move_into_its_partition(
    engine: Engine, owner: asyncpg.Connection, chained: Society
) -> None:
    await run_maintenance(engine, "make_partitions")  # the month may have turned since the template was made
    name, end = await owner.fetchrow("SELECT tableoid::regclass::text, max(position) FROM audit_log GROUP BY 1")
    await owner.execute(f"ALTER TABLE audit_log DETACH PARTITION {name}; ALTER TABLE {name} RENAME TO kept")
    await rename(engine, chained, "too late")
    (late,) = await broken_invariants(owner, names=("broken_partitions",))
    assert (late.subject, late.detail) == ("audit_log_default", "1 rows have no partition of their own")
    assert await run_maintenance(engine, "make_partitions") == {"made": [name]}
    assert await broken_invariants(owner, names=("broken_partitions",)) == []
    await owner.execute(f"INSERT INTO audit_log ({COLUMNS}) OVERRIDING SYSTEM VALUE SELECT {COLUMNS} FROM kept")
    await run_maintenance(engine, "chain_audit")
    assert (await length(owner), await found(owner)) == (end + 1, [])


COLUMNS = (
    "tenant_id, entry_id, table_name, record_id, operation, row_count, old_values, new_values, user_id, key_id,"
    " request_id, address, job, database_role, position, hash"
)


async def test_the_app_can_only_read(settings: Settings, owner: asyncpg.Connection, chained: Society) -> None:
    app = await asyncpg.connect(settings.database_url)
    partition = await owner.fetchval("SELECT tableoid::regclass::text FROM audit_log LIMIT 1")
    try:
        for statement in (
            "UPDATE audit_log SET job = 'x'",
            "DELETE FROM audit_log",
            "TRUNCATE audit_log",
            f"INSERT INTO audit_log (tenant_id, table_name, operation, row_count, database_role)"
            f" VALUES ('{chained.tenant_id}', 'x', 'INSERT', 1, 'x')",
            f"DELETE FROM {partition}",
            "UPDATE audit_heads SET position = 0",
            "DELETE FROM audit_heads",
            "ALTER TABLE members DISABLE TRIGGER audit_update",
            "SET session_replication_role = replica",
            "SELECT append_audit('users', '{}', 'INSERT', NULL, '{}')",
            "CREATE TEMP TABLE mine (tenant_id uuid, id int); CREATE TRIGGER t AFTER DELETE ON mine"
            " REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION write_audit('id')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with app.transaction():
                    await app.execute(f"SELECT set_tenant('{chained.tenant_id}')")
                    await app.execute(statement)
    finally:
        await app.close()
    assert await found(owner) == []


async def test_verify_tells_an_operator_and_keeps_ends_that_a_new_chain_cannot_meet(
    engine: Engine, superuser: asyncpg.Connection, chained: Society, settings: Settings, tmp_path: Path
) -> None:
    shell = Shell({"GUTHI_ADMIN_DATABASE_URL": settings.admin_database_url})
    try:
        end = await length(superuser)
        assert await shell.run("audit", "verify") == (0, f"the audit log holds: {end} entries in 1 chains\n", "")
        kept = await shell.run("audit", "verify", "--json")
        assert kept.code == 0 and json.loads(kept.out)["broken"] == []
        ends = tmp_path / "ends.json"
        ends.write_text(kept.out)
        assert (await shell.run("audit", "verify", "--against", str(ends))).code == 0

        await superuser.execute("UPDATE audit_log SET job = 'x' WHERE position = 5")
        broken = await shell.run("audit", "verify", "--json")
        (each,) = json.loads(broken.out)["broken"]
        assert broken.code == 1 and "position 5" in each["subject"]
        assert (await shell.run("doctor")).code == 1

        await superuser.execute("UPDATE audit_log SET position = NULL, hash = NULL; DELETE FROM audit_heads")
        await run_maintenance(engine, "chain_audit")
        assert (await shell.run("audit", "verify")).code == 0, "a superuser made the whole chain anew"
        told = await shell.run("audit", "verify", "--against", str(ends))
        assert told.code == 1 and f"position {end}: the entry does not have the hash that it once had" in told.out
        assert "is not what" in (await shell.run("audit", "verify", "--against", "LICENSE")).complaint
    finally:
        shell.close()
