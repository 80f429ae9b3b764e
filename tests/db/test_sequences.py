"""Sequences and counters that rows were brought past: found, mended, and then a new row is made."""

import asyncio

import asyncpg
import pytest

from domain.counters import init_counters, next_code
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.import_members import start_import
from jobs.invariants import broken_invariants, broken_sequences
from jobs.maintenance import run_maintenance
from tests.cycles import start
from tests.jobs.test_import_members import YEAR, as_csv
from tests.support import Society, make_society

LOG = "batch_job_log_entry_no_seq"


@pytest.fixture
async def job(engine: Engine, owner: asyncpg.Connection, society: Society) -> asyncpg.Record:
    """A cycle `CC-YEAR-00001`, and its job with a few entries in the log."""
    await start(engine, society, "inline")
    job = await owner.fetchrow("SELECT tenant_id, job_id FROM batch_jobs WHERE kind = 'create_contributions'")
    await owner.execute(
        "INSERT INTO batch_job_log (tenant_id, job_id, event) VALUES ($1, $2, 'x'), ($1, $2, 'y')", *job
    )
    return job


async def broken(owner: asyncpg.Connection) -> dict[str, str]:
    rows = await owner.fetch("SELECT name, status FROM check_sequence_health() WHERE status <> 'ok'")
    return {row["name"]: row["status"] for row in rows}


async def write_log(owner: asyncpg.Connection, job: asyncpg.Record) -> int:
    number: int = await owner.fetchval(
        "INSERT INTO batch_job_log (tenant_id, job_id, event) VALUES ($1, $2, 'x') RETURNING entry_no", *job
    )
    return number


async def test_a_whole_database_is_healthy(owner: asyncpg.Connection, job: asyncpg.Record) -> None:
    rows = await owner.fetch("SELECT * FROM check_sequence_health()")
    assert {row["status"] for row in rows} == {"ok"}
    found = {row["name"]: (row["table_name"], row["column_name"], row["next_value"] - row["max_used"]) for row in rows}
    assert found[LOG] == ("batch_job_log", "entry_no", 1)
    assert found[f"{job['tenant_id']} CC-{YEAR}"] == ("counters", "value", 1)


async def test_numbers_made_by_hand(owner: asyncpg.Connection, job: asyncpg.Record) -> None:
    last = await owner.fetchval("SELECT max(entry_no) FROM batch_job_log")
    await owner.execute(
        "INSERT INTO batch_job_log (tenant_id, job_id, entry_no, event) OVERRIDING SYSTEM VALUE"
        " SELECT $1, $2, n, 'by hand' FROM generate_series($3::bigint, $3 + 9) AS n",
        *job,
        last + 1,
    )
    assert await broken(owner) == {LOG: "behind"}
    (found,) = await broken_sequences(owner)
    assert (found.invariant, found.subject) == ("broken_sequences", LOG)
    with pytest.raises(asyncpg.UniqueViolationError):
        await write_log(owner, job)
    assert await owner.fetchval("SELECT repair_sequence($1)", LOG) == last + 11
    assert await broken(owner) == {}
    assert await write_log(owner, job) == last + 11


async def test_a_restored_dump_without_its_sequence(owner: asyncpg.Connection, job: asyncpg.Record) -> None:
    last = await owner.fetchval("SELECT max(entry_no) FROM batch_job_log")
    await owner.execute("SELECT setval($1::text::regclass, 1, false)", LOG)
    assert await broken(owner) == {LOG: "behind"}
    await owner.fetchval("SELECT repair_sequence($1)", LOG)
    assert await write_log(owner, job) == last + 1


async def test_a_sequence_never_moves_back(owner: asyncpg.Connection, job: asyncpg.Record) -> None:
    await owner.execute("SELECT setval($1::text::regclass, 1000)", LOG)
    assert await owner.fetchval("SELECT repair_sequence($1)", LOG) == 1001
    assert await write_log(owner, job) == 1001
    await owner.execute("SELECT setval($1::text::regclass, 9223372036854775807)", LOG)


async def test_serial_columns_and_empty_tables_count_too(owner: asyncpg.Connection) -> None:
    await owner.execute("CREATE TABLE old (id serial PRIMARY KEY, name text)")
    assert await broken(owner) == {}
    assert await owner.fetchval("SELECT repair_sequence('old_id_seq')") == 1
    await owner.execute("INSERT INTO old VALUES (1, 'x'), (2, 'y')")
    assert await broken(owner) == {"old_id_seq": "behind"}
    assert await owner.fetchval("SELECT repair_sequence('old_id_seq')") == 3
    assert await owner.fetchval("INSERT INTO old (name) VALUES ('z') RETURNING id") == 3


async def test_repair_waits_for_a_writer_in_the_middle(
    owner: asyncpg.Connection, job: asyncpg.Record, engine: Engine
) -> None:
    """The number that an open transaction took by hand is not given again."""
    last = await owner.fetchval("SELECT max(entry_no) FROM batch_job_log")
    await owner.execute("SELECT setval($1::text::regclass, 1, false)", LOG)
    async with engine.database.transaction(job["tenant_id"]) as tx:
        await tx.connection.execute(
            "INSERT INTO batch_job_log (tenant_id, job_id, entry_no, event) OVERRIDING SYSTEM VALUE"
            " VALUES ($1, $2, $3, 'late')",
            *job,
            last + 50,
        )
        mending = asyncio.create_task(owner.fetchval("SELECT repair_sequence($1)", LOG))
        await asyncio.sleep(0.2)
        assert not mending.done()
    assert await mending == last + 51


async def test_a_counter_set_back(
    engine: Engine, owner: asyncpg.Connection, society: Society, job: asyncpg.Record
) -> None:
    for _ in range(2):
        await start(engine, society, "inline")
    await owner.execute("UPDATE counters SET value = 1")
    name = f"{society.tenant_id} CC-{YEAR}"
    assert await broken(owner) == {name: "behind"}
    assert {each.invariant for each in await broken_invariants(owner)} == {"broken_counters"}
    with pytest.raises(asyncpg.UniqueViolationError):
        await start(engine, society, "inline")
    planned = await init_counters(owner, society.tenant_id, dry_run=True)
    assert await broken(owner) == {name: "behind"}
    done = await init_counters(owner, society.tenant_id)
    assert planned == done
    assert [(row["old_value"], row["value"], row["skipped"], row["changed"]) for row in done] == [(1, 3, 0, True)]
    assert not any(row["changed"] for row in await init_counters(owner, society.tenant_id))
    await start(engine, society, "inline")
    assert await owner.fetchval("SELECT max(cycle_code) FROM contribution_cycles") == f"CC-{YEAR}-00004"
    assert await broken_invariants(owner) == []


async def test_rows_brought_in_with_numbers(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    """By SQL, past the import that would have moved the counters; and then an import of both kinds."""
    number = 0
    for number in (3, 7, 9):
        await owner.execute(
            "UPDATE members SET member_number = $1"
            " WHERE member_id = (SELECT member_id FROM members WHERE member_number LIKE 'OLD-%' LIMIT 1)",
            f"UML-{YEAR}-F-{number:06}",
        )
    await owner.execute("DELETE FROM events WHERE aggregate_type = 'member'")
    await owner.execute("SELECT adopt_rows()")
    assert await broken(owner) == {f"{society.tenant_id} UML-{YEAR}-F": "behind"}
    (counter,) = await init_counters(owner, society.tenant_id)
    assert (counter["used"], counter["value"], counter["skipped"], counter["changed"]) == (3, 9, 6, True)
    async with engine.database.transaction(society.tenant_id) as tx:
        rows = [
            {"full_name": "New", "tier": "A", "gender": "F", "member_number": given}
            for given in ("", f"UML-{YEAR}-F-000020", "")
        ]
        job = await start_import(engine, tx, as_csv(*rows), society.user_id, dry_run=False)
    await run_job(engine, society.tenant_id, job.job_id)
    numbers = await owner.fetch("SELECT member_number FROM members WHERE full_name = 'New' ORDER BY 1")
    assert [row[0][-6:] for row in numbers] == ["000020", "000021", "000022"]
    assert await broken(owner) == {} and await broken_invariants(owner) == []


async def test_a_counter_ahead_stays_and_its_gap_is_written_down(
    owner: asyncpg.Connection, society: Society, job: asyncpg.Record, engine: Engine
) -> None:
    await owner.execute("UPDATE counters SET value = 10")
    assert await broken(owner) == {f"{society.tenant_id} CC-{YEAR}": "miscounted"}
    (counter,) = await init_counters(owner, society.tenant_id)
    assert (counter["value"], counter["skipped"]) == (10, 9)
    assert await broken_invariants(owner) == []


async def test_init_beside_those_who_take_numbers(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    """No number is given twice or lost, whether its counter exists or not."""
    taken: list[str] = []

    async def take() -> None:
        for _ in range(5):
            await start(engine, society, "inline")

    async def init() -> None:
        for _ in range(10):
            async with engine.database.connection() as connection:
                await connection.execute("SELECT set_config('app.current_tenant', $1, false)", str(society.tenant_id))
                await init_counters(connection, society.tenant_id)
                await connection.execute("RESET app.current_tenant")

    await asyncio.gather(take(), init(), take(), init(), take())
    taken = [row[0] for row in await owner.fetch("SELECT cycle_code FROM contribution_cycles ORDER BY 1")]
    assert taken == [f"CC-{YEAR}-{number:05}" for number in range(1, 16)]
    assert dict(await owner.fetchrow("SELECT value, skipped FROM counters")) == {"value": 15, "skipped": 0}
    assert await broken_invariants(owner) == []


async def test_init_waits_for_a_number_in_hand(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    """Of a counter that is just being made, beside members who came with numbers."""
    rename = "UPDATE members SET member_number = $1 WHERE member_number = $2"
    await owner.execute(rename, "UML-2020-F-000005", "OLD-5")
    async with engine.database.transaction(society.tenant_id) as tx:
        number = await next_code(tx, "UML-2020-F", 6)
        running = asyncio.create_task(init_counters(owner, society.tenant_id))
        await asyncio.sleep(0.2)
        assert not running.done()
        await tx.connection.execute(rename, number, "OLD-6")
    assert number == "UML-2020-F-000001"
    (counter,) = await running
    assert (counter["used"], counter["value"], counter["skipped"]) == (2, 5, 3)


async def test_the_daily_check_tells_sums_and_no_names(
    engine: Engine, owner: asyncpg.Connection, society: Society, job: asyncpg.Record
) -> None:
    other = await make_society(owner, members=3, prefix="OTH")
    await start(engine, other, "inline")
    assert await run_maintenance(engine, "check_sequences") == {"checked": 3, "broken": {}}
    await owner.execute("UPDATE counters SET value = 0")
    await owner.execute("SELECT setval($1::text::regclass, 1, false)", LOG)
    told = await run_maintenance(engine, "check_sequences")
    assert told == {"checked": 3, "broken": {"counter behind": 2, "sequence behind": 1}}
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with engine.database.connection() as connection:
            await connection.fetch("SELECT * FROM check_sequence_health()")
