"""Requests a second of the progress endpoint, against a bare handler with the same two look-ups."""

import asyncio
import contextlib
import socket
import sys
from statistics import median
from uuid import UUID

from bench.report import Figure, at_least, spread
from bench.stage import CYCLES, Client, Stage, until_active
from db.embedded import free_port
from jobs.create_contributions import CreateContributions
from jobs.engine.progress import progress_key

CONNECTIONS = 16


async def measure(stage: Stage, quick: bool) -> list[Figure]:
    rounds, seconds = (3, 2) if quick else (7, 5)
    await stage.clear()
    society = await stage.society(2_000, "PRO")
    client = Client(stage.port, society.api_key)
    async with stage.workers(1):
        cycle = client.start_cycle(society, strategy="queued")["cycleId"]
        await until_active(stage.owner, cycle, 0.01)
        await asyncio.sleep(0.5)
    port = free_port()
    bare = stage.start("-m", "bench.bare_app", str(port))
    while not _can_connect(port):
        await asyncio.sleep(0.05)
    key = progress_key(society.tenant_id, CreateContributions.name, UUID(cycle))
    assert await stage.redis.hget(key, "state") == b"Completed"
    key_id = society.api_key.split("_")[1]
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        authorization = f"Authorization: Bearer {society.api_key}"
        ours.append(await _load(stage.port, seconds, f"{CYCLES}/{cycle}/creation-progress", authorization))
        theirs.append(await _load(port, seconds, f"/{key_id}/{key}"))
    bare.stop()
    return [
        at_least(
            "progress endpoint, requests a second to a bare FastAPI handler with one look-up and one HGETALL",
            100 * median(ours) / median(theirs),
            80,
            " %",
            f"{CONNECTIONS} connections; ours: {spread(ours, '/s')}; bare: {spread(theirs, '/s')}",
        )
    ]


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
