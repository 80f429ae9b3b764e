"""`guthi events`, `guthi counters`, `guthi sequences`: what they print, and their exit codes."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator

import asyncpg
import pytest

from core.settings import Settings
from jobs.engine.engine import Engine
from jobs.maintenance import run_maintenance
from tests.cycles import start
from tests.shell import Shell
from tests.support import Api, Society

LOG = "batch_job_log_entry_no_seq"


@pytest.fixture
def direct(settings: Settings) -> Iterator[Shell]:
    """With the owner's URL, and no API."""
    shell = Shell({"GUTHI_ADMIN_DATABASE_URL": settings.admin_database_url})
    yield shell
    shell.close()


async def test_the_feed_is_printed_and_followed(shell: Shell, engine: Engine, society: Society) -> None:
    await run_maintenance(engine, "relay_events")
    printed = await shell.run("events", "--json", "--after", "100")
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert (printed.code, [event["position"] for event in events]) == (0, [101, 102, 103, 104, 105])
    people = await shell.run("events", "--after", "104")
    assert people.out.startswith("105\t") and people.out.count("\n") == 1
    following = shell.start("events", "--follow", "--json", "--after", "105")
    await start(engine, society, "inline")
    await run_maintenance(engine, "relay_events")
    await following.until("ContributionCycleActivated")
    assert [json.loads(line)["position"] for line in following.seen.decode().splitlines()] == [106, 107]
    following.process.send_signal(signal.SIGINT)
    assert (await following.ended()).code == 130


async def test_following_outlives_a_restart_of_the_api_and_ends_with_its_reader(
    shell: Shell, api: Api, start_api: Callable[..., Awaitable[Api]], engine: Engine, society: Society
) -> None:
    await run_maintenance(engine, "relay_events")
    following = shell.start("events", "--follow", "--json", "--after", "104")
    await following.until('"position":105')
    head = shell.start("events", "--follow", "--json", "--after", "104")
    await head.until('"position":105')
    head.close_output()  # as `| head -1` does; nothing more is printed
    assert await asyncio.to_thread(head.process.wait, 30) == 141
    api.kill()
    await start(engine, society, "inline")
    await run_maintenance(engine, "relay_events")
    await following.until_complaint("is away")
    await start_api(port=api.port)
    await following.until("ContributionCycleActivated")
    assert [json.loads(line)["position"] for line in following.seen.decode().splitlines()] == [105, 106, 107]
    following.process.send_signal(signal.SIGINT)
    done = await following.ended()
    assert (done.code, done.err) == (130, "guthi: the API is back\n")


async def test_replay_says_what_differs(direct: Shell, owner: asyncpg.Connection, society: Society) -> None:
    assert await direct.run("events", "replay") == (0, "105 records are what their 105 events say\n", "")
    assert json.loads((await direct.run("events", "replay", "--json")).out) == {
        "aggregates": 105,
        "events": 105,
        "differences": [],
    }
    await owner.execute("UPDATE events SET payload = payload || '{\"name\": \"Else\"}' WHERE aggregate_type = 'tier'")
    found = await direct.run("events", "replay")
    assert (found.code, found.out.count("\n")) == (1, 2)
    assert f"tier\t{society.tier_id}\tname\tElse\tTier A" in found.out
    told = await direct.run("events", "replay", "--json")
    assert (told.code, json.loads(told.out)["differences"][0]["field"]) == (1, "name")


async def test_counters_and_sequences_are_checked_and_mended(
    direct: Shell, owner: asyncpg.Connection, society: Society, engine: Engine
) -> None:
    await start(engine, society, "inline")
    job = await owner.fetchrow("SELECT tenant_id, job_id FROM batch_jobs WHERE kind = 'create_contributions'")
    await owner.execute(
        "INSERT INTO batch_job_log (tenant_id, job_id, event) VALUES ($1, $2, 'x'), ($1, $2, 'y')", *job
    )
    assert (await direct.run("sequences", "check")).code == 0
    assert (await direct.run("sequences", "repair", "--apply", "--json")).out == "[]\n"
    await owner.execute("SELECT setval($1::text::regclass, 1, false)", LOG)
    await owner.execute("UPDATE counters SET value = 0")
    doctor = await direct.run("doctor")
    assert doctor.code == 1 and f"broken_sequences: {LOG}: behind" in doctor.out and "broken_counters" in doctor.out
    check = await direct.run("sequences", "check", "--json")
    assert check.code == 1
    assert {each["name"]: each["status"] for each in json.loads(check.out)}[LOG] == "behind"
    dry = await direct.run("counters", "init", "--dry-run")
    assert dry.code == 0 and "would be set" in dry.out
    dry = await direct.run("sequences", "repair", "--json")
    assert dry.code == 0 and {each["now"] for each in json.loads(dry.out)} == {"behind"}
    done = await direct.run("sequences", "repair", "--apply", "--json")
    assert done.code == 0 and [each["now"] for each in json.loads(done.out)] == ["ok", "ok"]
    assert (await direct.run("doctor")).code == 0
    assert "right already" in (await direct.run("counters", "init")).out
    await start(engine, society, "inline")
