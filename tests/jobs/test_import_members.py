"""Members from a CSV: every rule for a row, numbers without gaps, several imports at once."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from domain.member_csv import COLUMNS
from jobs.engine.engine import Engine
from jobs.engine.model import Job
from jobs.engine.runner import run_job
from jobs.import_members import start_import
from jobs.invariants import broken_invariants
from tests.cycles import steer, tuned
from tests.support import Society, make_society

YEAR = datetime.now(UTC).year
GOOD = {"full_name": "Ram Bahadur", "tier": "A"}


@pytest.fixture(autouse=True)
async def _invariants_hold(owner: asyncpg.Connection) -> AsyncIterator[None]:
    """After each of these tests, and nothing is left in the staging table."""
    yield
    assert await broken_invariants(owner) == []
    assert await owner.fetchval("SELECT count(*) FROM member_import_rows") == 0


def as_csv(*rows: dict[str, str]) -> io.BytesIO:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return io.BytesIO(text.getvalue().encode())


async def begin(engine: Engine, society: Society, *rows: dict[str, str], dry_run: bool = False) -> Job:
    async with engine.database.transaction(society.tenant_id) as tx:
        return await start_import(engine, tx, as_csv(*rows), society.user_id, dry_run=dry_run)


async def bring(engine: Engine, society: Society, *rows: dict[str, str], dry_run: bool = False) -> Job:
    job = await begin(engine, society, *rows, dry_run=dry_run)
    await run_job(engine, society.tenant_id, job.job_id)
    return job


async def refusals(owner: asyncpg.Connection, job: Job) -> list[tuple[int, str, str]]:
    rows = await owner.fetch(
        "SELECT fields FROM batch_job_log WHERE job_id = $1 AND event = 'row_rejected' ORDER BY entry_no", job.job_id
    )
    fields = [orjson.loads(row["fields"]) for row in rows]
    return [(entry["line"], entry["column"], entry["reason"]) for entry in fields]


async def newcomers(owner: asyncpg.Connection, society: Society) -> list[asyncpg.Record]:
    """Members beyond those that `make_society` made, in the order of their ids."""
    rows: list[asyncpg.Record] = await owner.fetch(
        "SELECT * FROM members WHERE tenant_id = $1 AND member_number NOT LIKE 'OLD-%' ORDER BY member_id",
        society.tenant_id,
    )
    return rows


async def numbers(owner: asyncpg.Connection, society: Society) -> list[str]:
    return [row["member_number"] for row in await newcomers(owner, society)]


async def counter(owner: asyncpg.Connection, society: Society, name: str) -> tuple[int, int]:
    row = await owner.fetchrow(
        "SELECT value, skipped FROM counters WHERE tenant_id = $1 AND name = $2", society.tenant_id, name
    )
    return row["value"], row["skipped"]


async def test_a_good_row_becomes_a_member(engine: Engine, society: Society, owner: asyncpg.Connection) -> None:
    full = {
        "full_name": "सीता देवी",
        "gender": "f",
        "tier": "A",
        "agent": "AG2",
        "phone": "+977 9812345678",
        "email": "sita@example.org",
        "status": "Inactive",
        "joined_on": "1999-12-31",
        "member_number": "PAPER/12.b",
    }
    await bring(engine, society, GOOD, full)
    ram, sita = await newcomers(owner, society)
    agent = await owner.fetchval("SELECT agent_id FROM agents WHERE code = 'AG2'")
    assert {name: sita[name] for name in ("full_name", "gender", "phone", "email", "status", "member_number")} == {
        **{name: full[name] for name in ("full_name", "phone", "email", "status", "member_number")},
        "gender": "F",
    }
    assert (sita["tier_id"], sita["agent_id"], sita["joined_on"]) == (society.tier_id, agent, date(1999, 12, 31))
    assert (ram["gender"], ram["status"], ram["agent_id"], ram["phone"]) == ("O", "Active", None, None)
    assert ram["joined_on"] == await owner.fetchval("SELECT current_date")
    assert ram["member_number"] == f"UML-{YEAR}-O-000001"
    open_for = await owner.fetch("SELECT member_id FROM tier_memberships WHERE valid_to IS NULL")
    assert ram["member_id"] in {row["member_id"] for row in open_for}
    assert sita["member_id"] not in {row["member_id"] for row in open_for}


TOMORROW = str(date.today() + timedelta(days=2))
NUMBER_FORM = "may hold letters, digits, dashes, dots and slashes, at most 40"
BAD_ROWS: list[tuple[dict[str, str], str, str]] = [
    ({"full_name": ""}, "full_name", "is required"),
    ({"full_name": "  "}, "full_name", "is required"),
    ({"full_name": "x" * 201}, "full_name", "is longer than 200 characters"),
    ({"full_name": "Ram\nBahadur"}, "full_name", "must be one line, without control characters"),
    ({"full_name": "x" * 501}, "row", "has more than 500 characters in full_name"),
    ({"gender": "X"}, "gender", "must be F, M or O"),
    ({"gender": "Female"}, "gender", "must be F, M or O"),
    ({"tier": ""}, "tier", "is required"),
    ({"tier": "Z"}, "tier", "no tier has the code Z"),
    ({"tier": "a"}, "tier", "no tier has the code a"),
    ({"tier": "Z" * 80}, "tier", "no tier has the code " + "Z" * 50),
    ({"agent": "AG3"}, "agent", "no agent has the code AG3"),
    ({"phone": "123"}, "phone", "is not a phone number"),
    ({"phone": "call me"}, "phone", "is not a phone number"),
    ({"email": "sita"}, "email", "is not an e-mail address"),
    ({"email": "a b@c"}, "email", "is not an e-mail address"),
    ({"email": "x" * 250 + "@x.np"}, "email", "is not an e-mail address"),
    ({"status": "active"}, "status", "must be Active, Inactive or Deceased"),
    ({"status": "Dead"}, "status", "must be Active, Inactive or Deceased"),
    ({"joined_on": "31/12/2020"}, "joined_on", "must be a date like 2020-01-31"),
    ({"joined_on": "2020-02-30"}, "joined_on", "must be a date like 2020-01-31"),
    ({"joined_on": "infinity"}, "joined_on", "must be a date like 2020-01-31"),
    ({"joined_on": "now"}, "joined_on", "must be a date like 2020-01-31"),
    ({"joined_on": TOMORROW}, "joined_on", "lies in the future"),
    ({"joined_on": "1799-12-31"}, "joined_on", "lies too far in the past"),
    ({"member_number": "a b"}, "member_number", NUMBER_FORM),
    ({"member_number": "x" * 41}, "member_number", NUMBER_FORM),
    ({"member_number": "-1"}, "member_number", NUMBER_FORM),
    ({"member_number": "UML-2025-F-1"}, "member_number", "must look like UML-2025-F-000123"),
    ({"member_number": "UML-2025-X-000001"}, "member_number", "must look like UML-2025-F-000123"),
    ({"member_number": "UML-2025-F-0000001"}, "member_number", "must look like UML-2025-F-000123"),
    ({"member_number": "UML-2025-F-9999999999"}, "member_number", "must look like UML-2025-F-000123"),
    ({"member_number": "UML-2025-F-000000"}, "member_number", "counts from 1"),
    ({"member_number": "OLD-5"}, "member_number", "a member has it already"),
]


@pytest.mark.parametrize("dry_run", [False, True])
async def test_every_bad_row_is_told_and_stops_nothing(
    engine: Engine, society: Society, owner: asyncpg.Connection, dry_run: bool
) -> None:
    rows = [GOOD]
    for bad, _, _ in BAD_ROWS:
        rows += [{**GOOD, **bad}, GOOD]
    first = {**GOOD, "member_number": "TWICE"}
    lines = [1 + sum(1 + row["full_name"].count("\n") for row in rows[:n]) + 1 for n in range(len(rows))]
    job = await bring(engine, society, *rows, first, first, dry_run=dry_run)
    expected = [(lines[2 * n + 1], column, reason) for n, (_, column, reason) in enumerate(BAD_ROWS)]
    twice = (lines[-1] + 2, "member_number", "stands on a line before this one")
    assert await refusals(owner, job) == [*expected, twice]
    assert len(await newcomers(owner, society)) == (0 if dry_run else len(BAD_ROWS) + 2)
    stands = await owner.fetchrow("SELECT state, total FROM batch_jobs WHERE job_id = $1", job.job_id)
    assert tuple(stands) == ("Completed", len(rows) + 2)


async def test_a_row_may_have_several_problems(engine: Engine, society: Society, owner: asyncpg.Connection) -> None:
    job = await bring(engine, society, {"full_name": "", "gender": "X", "tier": "Z", "phone": "x"})
    assert [(line, column) for line, column, _ in await refusals(owner, job)] == [
        *((2, "full_name"), (2, "gender"), (2, "tier"), (2, "phone"))
    ]


async def test_a_dry_run_changes_nothing(engine: Engine, society: Society, owner: asyncpg.Connection) -> None:
    await bring(engine, society, GOOD, {**GOOD, "member_number": "UML-2025-F-000009"}, dry_run=True)
    assert await newcomers(owner, society) == []
    assert await owner.fetchval("SELECT count(*) FROM counters") == 0


async def test_numbers_are_given_by_gender_without_gaps(
    engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    small = tuned(engine, batch_rows=7)
    genders = ["F", "M", "M", "O", "", "F", "X", "m", "f"] * 5
    await bring(small, society, *({**GOOD, "gender": gender} for gender in genders))
    given = await numbers(owner, society)
    for gender, many in (("F", 15), ("M", 15), ("O", 10)):
        mine = [number for number in given if f"-{gender}-" in number]
        assert mine == [f"UML-{YEAR}-{gender}-{n:06d}" for n in range(1, many + 1)]
        assert await counter(owner, society, f"UML-{YEAR}-{gender}") == (many, 0)


async def test_imported_numbers_move_the_counters(engine: Engine, society: Society, owner: asyncpg.Connection) -> None:
    series = f"UML-{YEAR}-F"
    woman = {**GOOD, "gender": "F"}

    async def step(*rows: dict[str, str]) -> tuple[int, int]:
        await bring(engine, society, *rows)
        return await counter(owner, society, series)

    def brought(number: int) -> dict[str, str]:
        return {**woman, "member_number": f"{series}-{number:06d}"}

    assert await step(woman, woman) == (2, 0)
    assert await step(brought(10), woman) == (11, 7)  # 3 to 9 are skipped
    assert await step(brought(5), brought(7)) == (11, 5)  # two of those come after all
    assert await step(brought(20), brought(12), brought(6)) == (20, 11)
    assert await step(woman) == (21, 11)
    assert (await numbers(owner, society))[-1] == f"{series}-000021"
    await bring(engine, society, {**woman, "member_number": "UML-2001-M-1000000"})
    assert await counter(owner, society, "UML-2001-M") == (1_000_000, 999_999)


async def test_a_number_given_before_is_not_taken_again(
    engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    await bring(engine, society, GOOD)
    job = await bring(engine, society, {**GOOD, "member_number": f"UML-{YEAR}-O-000001"})
    assert await refusals(owner, job) == [(2, "member_number", "a member has it already")]


async def test_imports_at_the_same_time_share_the_numbers(
    engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    small = tuned(engine, batch_rows=20)
    mixed = [{**GOOD, "gender": "FM"[n % 2]} for n in range(100)]
    brought = [{**GOOD, "member_number": f"UML-{YEAR}-M-{n:06d}"} for n in range(50, 120)]
    jobs = [await begin(small, society, *rows) for rows in (mixed, mixed, brought, brought)]
    await asyncio.gather(*(run_job(small, society.tenant_id, job.job_id) for job in jobs))
    given = await numbers(owner, society)
    told = [reason for job in jobs for _, _, reason in await refusals(owner, job)]
    assert len(given) == len(set(given)) == 100 + 100 + 140 - len(told)
    assert set(told) == {"a member has it already"}
    women = sorted(number for number in given if "-F-" in number)
    assert women == [f"UML-{YEAR}-F-{n:06d}" for n in range(1, 101)]


async def test_another_tenants_codes_and_numbers_are_not_seen(
    engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    other = await make_society(owner, members=1, prefix="OTH")
    await owner.execute("UPDATE tiers SET code = 'THEIRS' WHERE tenant_id = $1", other.tenant_id)
    await owner.execute("UPDATE agents SET code = 'THEIRS' WHERE tenant_id = $1 AND code = 'AG1'", other.tenant_id)
    await owner.execute("DELETE FROM events WHERE tenant_id = $1", other.tenant_id)
    await owner.execute("SELECT adopt_rows()")
    job = await bring(engine, society, {**GOOD, "tier": "THEIRS"}, {**GOOD, "agent": "THEIRS"})
    assert [(line, column) for line, column, _ in await refusals(owner, job)] == [(2, "tier"), (3, "agent")]
    await bring(engine, other, {"full_name": "x", "tier": "THEIRS", "member_number": "OLD-50"})
    assert await owner.fetchval("SELECT count(*) FROM members WHERE member_number = 'OLD-50'") == 2


async def test_cancelled_it_keeps_the_members_made_and_forgets_the_rest(
    engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    one_batch = tuned(engine, batch_rows=10, slice_seconds=0)
    job = await begin(engine, society, *[GOOD] * 30)
    await run_job(one_batch, society.tenant_id, job.job_id)
    assert await numbers(owner, society) == [f"UML-{YEAR}-O-{n:06d}" for n in range(1, 11)]
    await steer(engine, society, "cancel", job.job_id)
    await run_job(engine, society.tenant_id, job.job_id)
    assert len(await numbers(owner, society)) == 10


async def test_after_a_failure_a_retry_goes_on_where_it_stood(
    engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    rows: list[dict[str, Any]] = [{**GOOD, "full_name": f"Member number {n}"} for n in range(30)]
    job = await begin(engine, society, *rows)
    await run_job(tuned(engine, batch_rows=10, faults="before_advance=error@2"), society.tenant_id, job.job_id)
    assert len(await numbers(owner, society)) == 10
    await steer(engine, society, "retry", job.job_id)
    await run_job(engine, society.tenant_id, job.job_id)
    assert [row["full_name"] for row in await newcomers(owner, society)] == [row["full_name"] for row in rows]
    assert await numbers(owner, society) == [f"UML-{YEAR}-O-{n:06d}" for n in range(1, 31)]
