"""Cycles of 5,000 members: by themselves, and beside another society's million."""

import asyncio
import time
from statistics import median
from typing import Any

import psutil

from bench.report import Figure, at_most, spread
from bench.stage import Client, Stage, until_active
from tests.support import Society

POLL_SECONDS = 0.001


async def five_thousand(stage: Stage, quick: bool) -> list[Figure]:
    """Posted one after the other to an idle worker, whose log (to the millisecond, rounded up) tells the pickups."""
    tries, idle_seconds = (12, 5) if quick else (60, 20)
    await stage.clear()
    society = await stage.society(5_000, "FIV")
    answered, active, pickups = [], [], []
    async with stage.workers(1, GUTHI_LOG_LEVEL="debug") as (worker,):
        share = await _cpu_share(worker.pid, idle_seconds)
        for turn in range(5 + tries):
            await asyncio.sleep(0.2)  # until the word to the agents is out, and the worker idle again
            before = len(worker.events("job_picked_up"))
            seconds = await _cycle(stage, society)
            if turn >= 5:
                answered.append(seconds[0])
                active.append(seconds[1])
                pickups.append(worker.events("job_picked_up")[before]["seconds"])
    return [
        at_most("5,000 members, POST answered", 1e3 * median(answered), 15, " ms", spread(answered, "ms", 1e3)),
        at_most("5,000 members, POST to `Active`", 1e3 * median(active), 100, " ms", spread(active, "ms", 1e3)),
        at_most("pickup by an idle worker, queue to hand", 1e3 * median(pickups), 4, " ms", spread(pickups, "ms", 1e3)),
        at_most("an idle worker's share of a core", 100 * share, 1, " %", f"over {idle_seconds} s"),
    ]


async def neighbour(stage: Stage, quick: bool) -> list[Figure]:
    """Only cycles that began and ended while the giant ran are counted."""
    rounds, members = (1, 300_000) if quick else (3, 1_000_000)
    await stage.clear()
    giant, small = await stage.society(members, "GIA"), await stage.society(5_000, "SMA")
    beside: list[float] = []
    async with stage.workers(2):
        for _ in range(3):
            await _cycle(stage, small)
        for _ in range(rounds):
            await stage.clear()
            cycle = Client(stage.port, giant.api_key).start_cycle(giant)
            await _until_running(stage, cycle)
            while True:
                _, seconds = await _cycle(stage, small)
                if await _state(stage, cycle) != "Processing":
                    break
                beside.append(seconds)
        await stage.clear()
    what = f"5,000 members beside another society's {members:,}, POST to `Active`"
    return [at_most(what, 1e3 * median(beside), 500, " ms", spread(beside, "ms", 1e3))]


async def _cycle(stage: Stage, society: Society) -> tuple[float, float]:
    """Seconds from the POST to its answer, and to `Active`."""
    client = Client(stage.port, society.api_key)
    client.call("GET", "/livez")  # the connection stands
    started = time.perf_counter()
    cycle = client.start_cycle(society, strategy="queued")
    answered = time.perf_counter()
    return answered - started, await until_active(stage.owner, cycle["cycleId"], POLL_SECONDS) - started


async def _cpu_share(pid: int, seconds: float) -> float:
    process = psutil.Process(pid)
    before = process.cpu_times()
    await asyncio.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


async def _until_running(stage: Stage, cycle: dict[str, Any]) -> None:
    while await _state(stage, cycle) != "Processing":
        await asyncio.sleep(0.001)


async def _state(stage: Stage, cycle: dict[str, Any]) -> Any:
    return await stage.owner.fetchval("SELECT state FROM batch_jobs WHERE job_id = $1::text::uuid", cycle["jobId"])
