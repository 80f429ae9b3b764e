"""What watchers and lists cost: progress, five hundred streams beside a running job, lists over millions of rows."""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any
from uuid import UUID

from api.fields import encode_cursor
from bench.create import OWING
from bench.report import Part, Table, at_least, at_most, spread
from bench.scale import Scale
from bench.stage import CYCLES, Client, Process, Stage, until_active
from db.embedded import free_port
from jobs.create_contributions import CreateContributions
from jobs.engine.progress import progress_key
from tests.support import Society

CONNECTIONS, PAGE = 16, 100
COLUMNS = "(tenant_id, cycle_id, member_id, contribution_amount, due_date)"


async def measure(stage: Stage, scale: Scale) -> Part:
    members, watchers = scale.pick(100_000, 5_000), scale.pick(500, 20)
    society = await stage.society(members, "REA")
    ours, bare = await _progress(stage, scale, society)
    alone, watched, ends = await _watched(stage, scale, society, watchers)
    pages, table_rows = await _pages(stage, scale)
    cycles = await _cycles(stage, scale, society)
    slower = median(watched) / median(alone)
    rows = [
        ["progress endpoint", spread(ours, "/s"), f"{100 * median(ours) / median(bare):.0f} % of a bare handler"],
        ["a bare FastAPI handler with one look-up and one HGETALL", spread(bare, "/s"), ""],
        ["cycles, newest 50 of 200", spread(cycles, "ms", 1e3), ""],
        [
            f"contributions, first {PAGE} of a cycle, {table_rows:,} rows in the table",
            spread(pages["first"], "ms", 1e3),
            "",
        ],
        [f"contributions, last {PAGE} of it", spread(pages["last"], "ms", 1e3), ""],
    ]
    streams = [
        ["cycle with no watcher", spread(alone, "s")],
        [f"cycle with {watchers} watchers", spread(watched, "s")],
        ["watchers that saw the end", f"{min(ends)} of {watchers}"],
    ]
    return Part(
        [
            Table(
                "Requests",
                ["what", "seen", ""],
                rows,
                f"Progress: {CONNECTIONS} connections, one uvicorn process each.",
            ),
            Table(f"{members:,} members, one API process", ["", ""], streams),
        ],
        [
            at_least(
                "progress endpoint, requests a second to a bare handler", 100 * median(ours) / median(bare), 80, " %"
            ),
            at_most(f"of {watchers} SSE watchers, those that did not see the end", watchers - min(ends), 0, ""),
            at_most(f"{members:,} members with {watchers} SSE watchers, to with none", slower, 1.1, " x"),
            at_most(
                "a cycle's last page of contributions, to its first",
                median(pages["last"]) / median(pages["first"]),
                1.2,
                " x",
            ),
        ],
        {
            "progress": {"ours": ours, "bare": bare},
            "alone": alone,
            "watched": watched,
            "pages": pages,
            "cycles": cycles,
        },
    )


async def _progress(stage: Stage, scale: Scale, society: Society) -> tuple[list[float], list[float]]:
    """Requests a second of the endpoint and of a bare handler with the same two look-ups, in turn."""
    client = Client(stage.port, society.api_key)
    async with stage.workers(1):
        cycle = client.start_cycle(society, strategy="queued")["cycleId"]
        await until_active(stage.owner, cycle, 0.01)
        await stage.settled()
    port = free_port()
    bare = stage.start("-m", "bench.bare_app", str(port))
    while not _can_connect(port):
        await asyncio.sleep(0.05)
    key = progress_key(society.tenant_id, CreateContributions.name, UUID(cycle))
    if await stage.redis.hget(key, "state") != b"Completed":
        raise RuntimeError("the scoreboard does not hold what is asked for")
    key_id, authorization = society.api_key.split("_")[1], f"Authorization: Bearer {society.api_key}"
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(scale.pick(5, 1)):
        seconds = scale.pick(4, 1)
        ours.append(await _load(stage.port, seconds, f"{CYCLES}/{cycle}/creation-progress", authorization))
        theirs.append(await _load(port, seconds, f"/{key_id}/{key}"))
    bare.stop()
    return ours, theirs


async def _watched(
    stage: Stage, scale: Scale, society: Society, watchers: int
) -> tuple[list[float], list[float], list[int]]:
    """Seconds of a cycle without and with watchers, in turn, and how many of these were told of its end."""
    alone: list[float] = []
    watched: list[float] = []
    ends: list[int] = []
    async with stage.workers(2) as workers:
        for turn in range(scale.pick(5, 1) + 1):
            for many in (0, watchers):
                await stage.clear()
                seconds, saw = await _cycle(stage, society, workers, many)
                if turn or scale.quick:
                    (watched if many else alone).append(seconds)
                    ends += [saw] if many else []
        await stage.clear()
    return alone, watched, ends


async def _cycle(stage: Stage, society: Society, workers: Sequence[Process], watchers: int) -> tuple[float, int]:
    """The workers are frozen until every watcher, in a process of their own, has its first event."""
    for worker in workers:
        worker.send(signal.SIGSTOP)
    cycle = Client(stage.port, society.api_key).start_cycle(society, strategy="queued")["cycleId"]
    path, authorization = f"{CYCLES}/{cycle}/creation-progress/stream", f"Authorization: Bearer {society.api_key}"
    watching = stage.start("-m", "bench.watch", str(stage.port), str(watchers), path, authorization)
    await watching.says("connected")
    for worker in workers:
        worker.send(signal.SIGCONT)
    started = time.perf_counter()
    seconds = await until_active(stage.owner, cycle, 0.002) - started
    await asyncio.to_thread(watching.wait, 90)
    await stage.settled()
    return seconds, int(watching.log.read_text().split()[-1])


async def _pages(stage: Stage, scale: Scale) -> tuple[dict[str, list[float]], int]:
    """Seconds of a cycle's first and last page, in a table of ten such cycles, read in turn."""
    members, cycles = scale.pick(1_000_000, 5_000), 10
    await stage.clear()
    society = await stage.society(members, "PAG")
    async with stage.workers(2):
        client = Client(stage.port, society.api_key)
        cycle = client.start_cycle(society, strategy="queued")["cycleId"]
        await until_active(stage.owner, cycle, 0.01)
        await stage.settled()
    for _ in range(cycles - 1):
        other = await stage.owner.fetchval("SELECT uuidv7()")
        statement = f"INSERT INTO contributions {COLUMNS} {OWING}"
        await stage.owner.execute(statement, other, society.tenant_id, society.tier_id, society.dead)
    await stage.owner.execute("VACUUM ANALYZE contributions")
    before_last = await stage.owner.fetchval(
        "SELECT member_id FROM contributions WHERE tenant_id = $1 AND cycle_id = $2::text::uuid"
        " ORDER BY member_id DESC OFFSET $3 LIMIT 1",
        society.tenant_id,
        cycle,
        PAGE,
    )
    path = f"{CYCLES}/{cycle}/contributions?limit={PAGE}"
    paths = {"first": path, "last": f"{path}&after={encode_cursor(before_last)}"}
    pages: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(scale.pick(60, 4)):
        for name, wanted in paths.items():
            seconds, body = _get(client, wanted)
            if len(body["items"]) != PAGE:
                raise RuntimeError(f"{len(body['items'])} rows on the {name} page")
            pages[name] += [seconds] if turn >= 2 else []
    return pages, members * cycles


async def _cycles(stage: Stage, scale: Scale, society: Society) -> list[float]:
    """Seconds of the newest fifty of two hundred cycles."""
    await stage.clear()
    client = Client(stage.port, society.api_key)
    started = [client.start_cycle(society, strategy="queued")["cycleId"] for _ in range(scale.pick(200, 10))]
    times = [_get(client, f"{CYCLES}?limit=50") for _ in range(scale.pick(60, 4))]
    if len(times[0][1]["items"]) != min(50, len(started)):
        raise RuntimeError("the list is not whole")
    await stage.owner.execute("TRUNCATE batch_jobs CASCADE")  # no worker will ever run them
    return [seconds for seconds, _ in times[2:]]


def _get(client: Client, path: str) -> tuple[float, dict[str, Any]]:
    started = time.perf_counter()
    status, body = client.call("GET", path)
    if status != 200:
        raise RuntimeError(f"{status}: {body}")
    return time.perf_counter() - started, body


def _can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


async def _load(port: int, seconds: float, *request: str) -> float:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.load",
        str(port),
        str(seconds),
        str(CONNECTIONS),
        *request,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return float(output)
