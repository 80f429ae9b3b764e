"""A short soak; that its reckoning sees what is lost, doubled and leaked; and that a Ctrl-C still brings one."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from prove.report import Options
from prove.soak import prove
from prove.soak_check import reckon
from prove.soak_load import Officer, Record
from tests.cycles import job_of
from tests.cycles import start as start_cycle
from tests.support import ROOT, Society

Plant = Callable[[asyncpg.Connection, Officer, Record], Awaitable[object]]


@pytest.mark.timeout(400)
async def test_a_quarter_of_a_minute_in_which_everything_breaks() -> None:
    outcome = await prove(Options(seed=1))
    assert outcome.failures == []
    assert "- cycles Active: " in outcome.report


@pytest.fixture
async def officer(engine: Engine, owner: asyncpg.Connection, society: Society) -> Officer:
    """Of a society with one cycle that is whole, and who was answered with it."""
    rows = await owner.fetch("SELECT member_id FROM members WHERE status = 'Active' ORDER BY 1")
    officer = Officer("UML", society, [row[0] for row in rows], ["http://nowhere"], Record(), "1")
    officer.steady = officer.churned  # nobody comes or goes here
    officer.cycles["one"] = str(await start_cycle(engine, society, "inline"))
    job = await job_of(owner, UUID(officer.cycles["one"]), "notify_agents_new_cycle")
    await run_job(engine, society.tenant_id, job["job_id"])
    officer.feed = await owner.fetchval("SELECT count(*) FROM events")
    return officer


async def nothing(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    """All is well."""


async def row_lost(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    await owner.execute("DELETE FROM contributions WHERE member_id = $1", officer.steady[0])


async def cycle_lost(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    officer.cycles["two"] = str(uuid4())


async def cycle_of_no_key(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    officer.cycles.clear()


async def import_lost(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    officer.imports["UML import 0"] = str(uuid4())


async def shown_to_another(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    record.see("OTH", "GET /api/members", f'{{"memberId": "{officer.steady[0]}"}}')


async def shown_to_both(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    for name in ("UML", "OTH"):
        record.see(name, "GET /api/x", f'{{"memberId": "{uuid4()}", "tierId": "{UUID(int=7)}"}}')


async def agents_not_told(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    await owner.execute("DELETE FROM notifications")


async def event_not_read(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    officer.feed -= 1


@pytest.mark.parametrize(
    ("plant", "seen"),
    [
        (nothing, None),
        (row_lost, "LOST: 1 members who never left are not in cycle"),
        (cycle_lost, "LOST: UML was answered with cycle"),
        (cycle_of_no_key, "DOUBLED: cycle"),
        (import_lost, "LOST: UML import 0"),
        (shown_to_another, "LEAK: "),
        (shown_to_both, "LEAK: OTH was shown"),
        (agents_not_told, "the agents were not told"),
        (event_not_read, "UML read"),
    ],
)
async def test_the_reckoning_sees(
    engine: Engine, owner: asyncpg.Connection, officer: Officer, plant: Plant, seen: str | None
) -> None:
    await plant(owner, officer, officer.record)
    await reckon(owner, [officer], officer.record, engine.progress)
    found = officer.record.findings
    assert (found == []) if seen is None else any(finding.startswith(seen) for finding in found), found


@pytest.mark.timeout(300)
async def test_ctrl_c_ends_it_and_it_still_looks() -> None:
    command = [sys.executable, "-m", "prove", "soak", "--minutes", "60", "--seed", "3"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"everything runs" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    said = (await process.stdout.read()).decode()
    assert (await process.wait(), "soak: holds" in said) == (0, True), said
