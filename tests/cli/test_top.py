"""`guthi top` in a real terminal, against a real API and a real worker."""

import signal
from collections.abc import Awaitable, Callable

import asyncpg

from domain.api_keys import new_api_key
from jobs.engine.engine import Engine
from tests.cycles import SMALL_STEPS, becomes, job_of, slow_batches, start
from tests.shell import ESCAPE, Shell
from tests.support import Api, Society, Worker, assert_whole, eventually

HOSTILE = "no\x1b]0;evil\x07more"
"""As a name in the database, and so in an error: it would set the terminal's title."""


async def test_a_job_is_steered_from_the_screen(
    shell: Shell,
    api: Api,
    start_api: Callable[..., Awaitable[Api]],
    start_worker: Callable[..., Worker],
    engine: Engine,
    society: Society,
    owner: asyncpg.Connection,
) -> None:
    await owner.execute("UPDATE tenants SET name = $1", f"Society {ESCAPE}]0;evil\x07\u202ex")
    await slow_batches(owner, 0.5)
    start_worker(**SMALL_STEPS | {"GUTHI_BATCH_ROWS": 2, "GUTHI_WORKER_NAME": "palpa-1"})
    screen = shell.open_terminal("top")
    await screen.until("No job runs", "Start a cycle", "1 worker", "palpa-1", "idle", "Administrator, admin")
    cycle_id = await start(engine, society)
    await screen.until("CC-", "Processing", "/100", "━", "/s", "palpa-1  1/5  CC-", "held 0: palpa-1")

    screen.press("p")
    await screen.until("Pause CC-", "further row appears until it is resumed", "y yes, pause it")
    screen.press("n")
    await screen.until("Processing", without="yes, pause it")
    assert (await job_of(owner, cycle_id))["state"] == "Processing"
    screen.press("p")
    await screen.until("yes, pause it")
    screen.press("y")
    await screen.until("is Paused at", "1 Paused")
    assert (await job_of(owner, cycle_id))["state"] == "Paused"
    screen.press("t")
    await screen.until("is Paused: it cannot be retried now")

    await owner.execute(f'ALTER TABLE contributions ADD CONSTRAINT "{HOSTILE}" CHECK (false) NOT VALID')
    screen.press("r")
    await screen.until("It goes on from where it stood", "yes, resume it")
    screen.press("y")
    await screen.until("1 Failed", "no ]0;evil more")
    await owner.execute(f'ALTER TABLE contributions DROP CONSTRAINT "{HOSTILE}"')
    api.kill()
    await screen.until("the API is away")
    screen.press("t")
    await screen.until("Mend the cause first", "yes, retry it")
    screen.press("y")
    await screen.until("the API is away: nothing was done")
    await start_api(port=api.port)
    await screen.until("1 Failed", without="the API is away, waiting")
    await slow_batches(owner, 0)
    screen.press("t")
    await screen.until("yes, retry it")
    screen.press("y")
    await becomes(owner, cycle_id, "Active")
    await screen.until("Completed", "100%", without="1 Failed")
    await assert_whole(owner, society, cycle_id)
    screen.press("q")
    assert await screen.ended() == 0
    assert b"\x1b]0;evil" not in screen.raw and "\u202e".encode() not in screen.raw


async def test_a_viewer_only_looks_and_any_size_will_do(
    shell: Shell, engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    user_id = await owner.fetchval(
        "INSERT INTO users (tenant_id, email, name, role) VALUES ($1, 'v', 'Hari', 'viewer') RETURNING user_id",
        society.tenant_id,
    )
    key = (await new_api_key(owner, society.tenant_id, user_id)).api_key
    cycle_id = await start(engine, society)
    screen = shell.open_terminal("top", columns=40, rows=12, GUTHI_API_KEY=key)
    await screen.until("Hari", "CC-", "Queued", without="PROGRESS")
    screen.press("c")
    await screen.until("you may not cancel jobs")
    assert (await job_of(owner, cycle_id))["state"] == "Queued"
    screen.resize(120, 30)
    await screen.until("PROGRESS", "ROWS", "LEFT", "BY", "nobody works")
    screen.resize(80, 24)
    await screen.until("PROGRESS", "RATE", without="BY ")
    await owner.execute("UPDATE users SET is_active = false WHERE user_id = $1", user_id)
    assert await screen.ended() == 2
    assert "USER_INACTIVE" in screen.raw.decode().splitlines()[-1]


async def test_it_leaves_the_terminal_as_it_was(shell: Shell) -> None:
    for ends, code in ((b"\x03", 130), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
        screen = shell.open_terminal("top")
        await screen.until("No job runs")
        if isinstance(ends, bytes):
            screen.press(ends.decode())
        else:
            screen.send(ends)
        assert await screen.ended() == code
        assert screen.raw.rindex(b"\x1b[?1049l") > screen.raw.rindex(b"\x1b[?1049h")


async def test_without_a_terminal_it_says_what_to_use(
    shell: Shell, engine: Engine, society: Society, start_worker: Callable[..., Worker]
) -> None:
    await start(engine, society)
    refused, printed = shell.start("top"), shell.start("top", "--once")
    assert "--once" in (await refused.ended()).complaint
    done = await printed.ended()
    header, row, *_ = done.out.splitlines()
    shown = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert done.code == 0 and ESCAPE not in done.out
    assert (shown["STATE"], shown["DONE"], shown["BY"]) == ("Queued", "0%", "Administrator")
    worker = start_worker(GUTHI_WORKER_NAME="palpa-1")

    async def listed() -> str:
        return (await shell.run("workers")).out

    assert "palpa-1\t" in (at_work := await eventually(listed, lambda out: "palpa-1" in out))
    assert f"\t{worker.pid}\t0\t5\t" in at_work and "in the queue" in at_work
