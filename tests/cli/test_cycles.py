"""`guthi cycles` against a real API and real workers: started, listed, and watched to every end there is."""

import json
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from cli import cycles, following
from cli.client import ApiClient
from tests.shell import ESCAPE, Shell
from tests.support import Api, Society, Worker, assert_whole

START = ("cycles", "start", "--tier", "A", "--deceased", "OLD-0", "--strategy", "queued")


async def started(shell: Shell) -> dict[str, Any]:
    """A cycle that waits for a worker."""
    cycle: dict[str, Any] = json.loads((await shell.run(*START, "--json")).out)
    assert cycle["cycleStatus"] == "Initializing"
    return cycle


async def test_a_terminal_shows_a_bar_until_the_cycle_is_active(
    shell: Shell, start_worker: Callable[..., Worker], owner: asyncpg.Connection, society: Society
) -> None:
    cycle = await started(shell)
    watching = shell.start("cycles", "watch", cycle["cycleCode"], columns=100)
    await watching.until("Initializing")
    start_worker()
    done = await watching.ended()
    assert done.code == 0
    for drawn in (ESCAPE, "━", "100%", "100/100", "/s", "0:00:00", f"{cycle['cycleCode']} is Active, 100 members"):
        assert drawn in done.out
    await assert_whole(owner, society, cycle["cycleId"])


async def test_a_pipe_gets_lines_without_escapes(shell: Shell, start_worker: Callable[..., Worker]) -> None:
    watching = shell.start(*START, "--watch")
    await watching.until("Initializing 0 of 0\n")
    start_worker()
    done = await watching.ended()
    assert (done.code, done.err) == (0, "")
    assert ESCAPE not in done.out and "\r" not in done.out
    lines = done.out.splitlines()
    assert lines[-2].endswith(": Active 100 of 100") and lines[-1].endswith(" is Active, 100 members")
    again = await shell.run("cycles", "watch", lines[-1].split()[0], "--json")
    assert (again.code, json.loads(again.out)["cycleStatus"]) == (0, "Active")


async def test_watching_and_starting_outlive_a_restart_of_the_api(
    shell: Shell, api: Api, start_api: Callable[..., Awaitable[Api]], start_worker: Callable[..., Worker]
) -> None:
    first = await started(shell)
    watching = shell.start("cycles", "watch", first["cycleId"])
    await watching.until("Initializing")
    api.kill()
    starting = shell.start(*START)
    await start_api(port=api.port)
    start_worker()
    assert (await starting.ended()).code == 0
    done = await watching.ended()
    assert done.code == 0 and done.out.endswith(f"{first['cycleCode']} is Active, 100 members\n")


async def test_all_cycles_are_watched_and_new_ones_are_picked_up(
    shell: Shell,
    api: Api,
    start_api: Callable[..., Awaitable[Api]],
    start_worker: Callable[..., Worker],
) -> None:
    people, programs = shell.start("cycles", "watch", "--all"), shell.start("cycles", "watch", "--all", "--json")
    for watching in (people, programs):
        await watching.until_complaint("no cycle is being created now")
    first = await started(shell)
    await people.until(f"{first['cycleCode']}: Queued 0 of 0\n")
    await programs.until(first["cycleCode"])
    screen = shell.open_terminal("cycles", "watch", "--all", columns=40)
    await screen.until(first["cycleCode"], "━", "Queued")
    api.kill()
    await people.until_complaint("is away")
    await screen.until("the API is away")
    start_worker()
    await start_api(port=api.port)
    second = await started(shell)
    for cycle in (first, second):
        told = f"{cycle['cycleCode']} is Active, 100 members"
        await people.until(f"{told}\n")
        await screen.until(told, without=f"{cycle['cycleCode']} ━")
    lines = people.seen.decode().splitlines()
    assert len(lines) == len(set(lines))
    await programs.until(f'"subjectCode":"{second["cycleCode"]}","state":"Completed"')
    last = {json.loads(line)["subjectCode"]: json.loads(line)["state"] for line in programs.seen.splitlines()}
    assert last == {first["cycleCode"]: "Completed", second["cycleCode"]: "Completed"}
    screen.press("\x03")
    assert await screen.ended() == 130
    people.process.send_signal(signal.SIGINT)
    assert (await people.ended()).code == 130


async def test_a_failed_cycle_is_told_with_its_reason_and_a_retry_ends_it(
    shell: Shell, start_worker: Callable[..., Worker], owner: asyncpg.Connection, society: Society
) -> None:
    await owner.execute("ALTER TABLE contributions ADD CONSTRAINT no_more CHECK (false) NOT VALID")
    cycle = await started(shell)
    start_worker()
    done = await shell.run("cycles", "watch", cycle["cycleId"])
    assert done.code == 1
    assert f"{cycle['cycleCode']} is Failed: " in done.out and "no_more" in done.out
    await owner.execute("ALTER TABLE contributions DROP CONSTRAINT no_more")
    retried = await shell.run("jobs", "retry", cycle["jobId"])
    assert (retried.code, retried.err) == (0, "") and "Queued" in retried.out
    assert (await shell.run("cycles", "watch", cycle["cycleId"])).code == 0
    await assert_whole(owner, society, cycle["cycleId"])


async def test_lists_and_details_are_for_scripts_and_for_people(shell: Shell) -> None:
    cycle = await started(shell)
    commands = [
        shell.start("cycles", "list"),
        shell.start("cycles", "list", "--status", "Failed"),
        shell.start("cycles", "list", "--json"),
        shell.start("cycles", "show", cycle["cycleCode"]),
        shell.start("cycles", "show", cycle["cycleId"], "--json"),
        shell.start("cycles", "list", columns=60),
    ]
    listed, none, as_json, shown, shown_json, drawn = [await command.ended() for command in commands]
    header, row = (line.split("\t") for line in listed.out.splitlines())
    assert header[:2] == ["CODE", "STATUS"]
    assert (row[0], row[1], row[-1]) == (cycle["cycleCode"], "Initializing", cycle["cycleId"])
    assert len(none.out.splitlines()) == 1
    assert [each["cycleId"] for each in json.loads(as_json.out)] == [cycle["cycleId"]]
    assert re.search(f"^cycle id +{cycle['cycleId']}$", shown.out, re.MULTILINE) and ESCAPE not in shown.out
    assert ESCAPE in drawn.out and cycle["cycleId"] in drawn.out
    assert json.loads(shown_json.out)["cycleCode"] == cycle["cycleCode"]


async def test_a_start_says_all_that_it_is_told_and_a_key_makes_it_once(shell: Shell, society: Society) -> None:
    options = ("--amount", "7.50", "--benefit", "99", "--days", "3", "--priority", "5", "--strategy", "inline")
    members = ("--tier", str(society.tier_id), "--deceased", str(society.dead))
    first, again = [
        await shell.run("cycles", "start", *members, *options, "--idempotency-key", "k1", "--json") for _ in range(2)
    ]
    cycle = json.loads(first.out)
    assert again == first
    assert (cycle["cycleStatus"], cycle["contributionAmount"], cycle["targetAmount"]) == ("Active", "7.50", "750.00")
    assert len(json.loads((await shell.run("cycles", "list", "--json")).out)) == 1


async def test_what_cannot_be_is_one_line(shell: Shell) -> None:
    wrong = {
        "no tier has the code Z": [*START[:3], "Z", *START[4:]],
        "no member has the number OLD-777": [*START[:5], "OLD-777"],
        "the member is Active": [*START[:5], "OLD-7"],
        "contributionAmount": [*START, "--amount", "NaN"],
        "--strategy": [*START, "--strategy", "magic"],
        "no cycle has the code CC-1999-00001": ["cycles", "show", "CC-1999-00001"],
        "name a cycle": ["cycles", "watch"],
        "or say --all": ["cycles", "watch", "CC-1999-00001", "--all"],
        "CYCLE_NOT_FOUND": ["cycles", "watch", "00000000-0000-0000-0000-000000000000"],
        "INVALID_INPUT": ["cycles", "list", "--status", "Sleepy"],
    }
    commands = [shell.start(*arguments) for arguments in wrong.values()]
    for said, command in zip(wrong, commands, strict=True):
        assert said in (await command.ended()).complaint


def test_without_a_stream_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "AGAIN_SECONDS", 0)
    answers: Iterator[httpx.Response] = iter(
        [
            httpx.Response(200, json={"status": "Initializing", "n": 1}),
            httpx.Response(200, text='event: progress\ndata: {"status": "Initializing", "n": 2}\n\n: ping\n\n'),
            httpx.Response(200, json={"status": "Initializing", "n": 3}),
            httpx.Response(502, text="<html>"),
            httpx.Response(200, json={"status": "Initializing", "n": 4}),
            httpx.Response(200, text='data: {"sta\n\n'),
            httpx.Response(200, json={"status": "Active", "n": 5}),
        ]
    )
    asked: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return next(answers)

    with ApiClient("http://api.test", "key") as api:
        api.http = httpx.Client(transport=httpx.MockTransport(respond), base_url="http://api.test")
        assert [progress["n"] for progress in cycles._changes(api, "/c")] == [1, 2, 3, 4, 5]
    assert asked == [*["/c/creation-progress", "/c/creation-progress/stream"] * 3, "/c/creation-progress"]
