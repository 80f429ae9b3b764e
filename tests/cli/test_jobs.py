"""`guthi jobs` against a real API: seen, and steered along the state map."""

import json
from collections.abc import Awaitable, Callable

from tests.cli.test_cycles import started
from tests.shell import ESCAPE, Shell
from tests.support import Api, Worker


async def test_a_job_is_steered_to_its_end(shell: Shell) -> None:
    cycle = await started(shell)
    job_id = cycle["jobId"]
    for verb, state in (("pause", "Paused"), ("resume", "Queued"), ("cancel", "Cancelled")):
        done = await shell.run("jobs", verb, job_id)
        assert done == (0, f"create_contributions {job_id} is {state} at 0\n", "")
    refused, watched = shell.start("jobs", "pause", job_id), shell.start("cycles", "watch", cycle["cycleId"])
    assert "INVALID_STATUS_TRANSITION" in (await refused.ended()).complaint
    done = await watched.ended()
    assert done.code == 1 and done.out.splitlines()[-1].startswith(f"{cycle['cycleCode']} is Cancelled")


async def test_jobs_are_listed_and_shown(shell: Shell) -> None:
    job_id = (await started(shell))["jobId"]
    commands = [
        shell.start("jobs", "list"),
        shell.start("jobs", "list", "--state", "Failed", "--kind", "create_contributions", "--json"),
        shell.start("jobs", "show", job_id),
        shell.start("jobs", "show", job_id, "--json"),
        shell.start("jobs", "show", "00000000-0000-0000-0000-000000000000"),
        shell.start("jobs", "show", "../tiers"),
    ]
    listed, none, shown, shown_json, unknown, no_id = [await command.ended() for command in commands]
    header, row = (line.split("\t") for line in listed.out.splitlines())
    assert dict(zip(header, row, strict=True))["ID"] == job_id
    assert json.loads(none.out) == []
    assert f"job id                    {job_id}\n" in shown.out and ESCAPE not in shown.out
    assert "SHARD\tROWS" in shown.out and "AT\tLEVEL" in shown.out
    assert json.loads(shown_json.out)["jobId"] == job_id
    assert "JOB_NOT_FOUND" in unknown.complaint
    assert "valid UUID" in no_id.complaint


async def test_a_log_is_followed_to_the_end_of_the_job(
    shell: Shell, api: Api, start_api: Callable[..., Awaitable[Api]], start_worker: Callable[..., Worker]
) -> None:
    job_id = (await started(shell))["jobId"]
    following = [shell.start("jobs", "log", job_id, "--follow", *option) for option in ((), ("--json",))]
    for command in following:
        await command.until("job_started")
    api.kill()
    await following[0].until_complaint("is away")
    start_worker()
    await start_api(port=api.port)
    people, programs = [await command.ended() for command in following]
    events = ["job_started", "job_processing", "job_planned", "job_completed"]
    assert people.code == programs.code == 0
    assert [line.split("\t")[2] for line in people.out.splitlines()] == events
    assert [json.loads(line)["event"] for line in programs.out.splitlines()] == events
    again = [shell.start("jobs", "log", job_id, *option) for option in (("-f",), ())]
    assert [(await command.ended()).out for command in again] == [people.out] * 2
    unknown = shell.start("jobs", "log", "00000000-0000-0000-0000-000000000000", "--follow")
    assert "JOB_NOT_FOUND" in (await unknown.ended()).complaint
