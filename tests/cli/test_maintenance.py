"""`guthi maintenance run`: each job by hand, recorded as cron's runs are."""

import json
from collections.abc import Iterator

import asyncpg
import pytest

from core.settings import Settings
from jobs.maintenance import MAINTENANCE
from tests.shell import Shell
from tests.support import Society

NOWHERE = "postgresql://guthi_app@127.0.0.1:1/guthi"


@pytest.fixture
def direct(settings: Settings) -> Iterator[Shell]:
    """No API: it connects by itself."""
    shell = Shell(
        {
            "GUTHI_DATABASE_URL": settings.database_url,
            "GUTHI_REDIS_URL": settings.redis_url,
            "GUTHI_QUEUE_NAME": settings.queue_name,
        }
    )
    yield shell
    shell.close()


async def test_each_runs_prints_its_result_and_is_recorded(
    direct: Shell, owner: asyncpg.Connection, society: Society
) -> None:
    commands = {name: direct.start("maintenance", "run", name, "--json") for name in MAINTENANCE}
    for name, command in commands.items():
        done = await command.ended()
        assert (done.code, done.err) == (0, ""), name
        recorded = await owner.fetchrow("SELECT result, error FROM maintenance_runs WHERE name = $1", name)
        assert recorded is not None
        assert (json.loads(recorded["result"]), recorded["error"]) == (json.loads(done.out), None)
    people = await direct.run("maintenance", "run", "reconcile")
    assert people == (0, "tenants  1\nbroken   0\n", "")


async def test_what_goes_wrong_is_one_line(direct: Shell) -> None:
    unknown = (await direct.run("maintenance", "run", "everything")).complaint
    assert all(name in unknown for name in MAINTENANCE)
    assert (
        "GUTHI_DATABASE_URL is not set"
        in (await direct.run("maintenance", "run", "sweep", GUTHI_DATABASE_URL="")).complaint
    )
    failed = await direct.run("maintenance", "run", "reconcile", GUTHI_DATABASE_URL=NOWHERE)
    assert (failed.code, failed.out, failed.err.count("\n")) == (1, "", 1)
    assert "reconcile failed" in failed.err and "the database cannot be reached" in failed.err
    for bad in ({"GUTHI_DATABASE_URL": "rabbit://"}, {"GUTHI_REDIS_URL": "rabbit://"}):
        assert next(iter(bad)) in (await direct.run("maintenance", "run", "sweep", **bad)).complaint


async def test_what_there_is_is_listed(shell: Shell) -> None:
    before = await shell.run("maintenance", "list")
    assert before.code == 0 and "relay_events\tevery 2 seconds\t" in before.out and "never ran" in before.out
    assert (await shell.run("maintenance", "run", "relay_events")).code == 0
    listed = json.loads((await shell.run("maintenance", "list", "--json")).out)
    last = next(item["lastRun"] for item in listed if item["name"] == "relay_events")
    assert last["error"] is None and last["seconds"] >= 0
