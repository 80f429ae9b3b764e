"""`scripts/tour` as a newcomer runs it: a member's whole way over HTTP, with real processes behind it."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable

import asyncpg

from jobs.invariants import broken_invariants
from tests.support import ROOT, Api, Society, Worker, clean_environment


def tour(**environment: str) -> str:
    given = clean_environment()
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "tour.py"],
        env={**given, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def assert_whole_way(said: str) -> None:
    for line in (
        r"Sita Tamang: Pending, number not given",
        r"Sita Tamang: Approved, number UML-\d{4}-F-\d{6}",
        r"refused: .* \(CONCURRENT_MODIFICATION\)",
        r"Sita Tamang: Suspended \(two contributions behind\), number UML-\d{4}-F-\d{6}",
        r"refused: a member that is Deceased cannot become Active \(INVALID_STATUS_TRANSITION\)",
        r"cycle CC-\d{4}-00001 is Active, 100 %",
        r"2 members owe 100\.00 each, by .*",
        r"Gita Gurung: 100\.00, Pending",
        r"Ram Thapa: nothing",
    ):
        assert re.search(f"^  {line}$", said, re.MULTILINE), f"{line} is not in:\n{said}"


async def test_the_tour_of_a_running_system(
    start_api: Callable[..., Awaitable[Api]],
    start_worker: Callable[..., Worker],
    owner: asyncpg.Connection,
    society: Society,
) -> None:
    api = await start_api()
    start_worker()
    said = await asyncio.to_thread(tour, GUTHI_API_URL=api.url, GUTHI_API_KEY=society.api_key)
    assert_whole_way(said)
    assert await broken_invariants(owner) == []
    rows = await owner.fetch(
        "SELECT m.full_name, m.status FROM contributions AS b JOIN members AS m USING (tenant_id, member_id)"
    )
    assert {tuple(row) for row in rows} == {("Sita Tamang", "Active"), ("Gita Gurung", "Active")}


def test_the_tour_brings_a_system_of_its_own() -> None:
    said = tour()
    assert said.startswith("Starting a system of its own in ")
    assert_whole_way(said)
