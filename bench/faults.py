"""What a crash costs, and what a pause promises."""

import asyncio
import signal
import time
from typing import Any

from bench.report import Figure, at_most, spread
from bench.stage import Client, Stage


async def recovery(stage: Stage, quick: bool) -> list[Figure]:
    """Kill the worker that has the whole job; the other one is alive, and stopped only while the first takes it."""
    tries, members = (2, 400_000) if quick else (7, 1_000_000)
    await stage.clear()
    society = await stage.society(members, "REC")
    client = Client(stage.port, society.api_key)
    gaps = []
    for _ in range(tries):
        async with stage.workers(2) as (first, second):
            second.send(signal.SIGSTOP)
            cycle = client.start_cycle(society)
            await _rows_above(stage, cycle, members // 20)
            second.send(signal.SIGCONT)
            await asyncio.sleep(0.05)
            first.send(signal.SIGKILL)
            killed = time.perf_counter()
            await asyncio.sleep(0.5)  # a commit that was on its way may still arrive
            stood = await _rows(stage, cycle)
            assert stood < members, "the job was done before the kill: nothing was measured"
            gaps.append(await _rows_above(stage, cycle, stood) - killed)
            await stage.clear()
    what = "a SIGKILLed worker's job: from the kill to the next row by another worker, longest"
    return [at_most(what, max(gaps), 7, " s", spread(gaps, "s"))]


async def pause(stage: Stage, quick: bool) -> list[Figure]:
    """The answer says how many rows stand; any more that are there a second later broke the promise."""
    tries, members = (4, 200_000) if quick else (12, 200_000)
    await stage.clear()
    society = await stage.society(members, "PAU")
    client = Client(stage.port, society.api_key)
    late, seconds = 0, []
    async with stage.workers(2):
        for attempt in range(tries):
            cycle = client.start_cycle(society)
            await _rows_above(stage, cycle, members * attempt // (2 * tries))
            asked = time.perf_counter()
            status, job = client.call("POST", f"/api/jobs/{cycle['jobId']}/pause")
            seconds.append(time.perf_counter() - asked)
            assert (status, job["state"]) == (200, "Paused") and 0 < job["processed"] < members, job
            await asyncio.sleep(1)
            late += await _count(stage, cycle) - job["processed"]
            client.call("POST", f"/api/jobs/{cycle['jobId']}/cancel")
            await stage.clear()
    what = f"rows that appear after a pause's answer, {tries} tries"
    return [at_most(what, late, 0, "", f"answered: {spread(seconds, 'ms', 1e3)}")]


async def _rows(stage: Stage, cycle: dict[str, Any]) -> int:
    """The shards' count, which is committed with the rows: cheap to ask for."""
    rows = await stage.owner.fetchval(
        "SELECT coalesce(sum(processed), 0)::bigint FROM batch_job_shards WHERE job_id = $1::text::uuid", cycle["jobId"]
    )
    return int(rows)


async def _rows_above(stage: Stage, cycle: dict[str, Any], rows: int) -> float:
    while await _rows(stage, cycle) <= rows:
        await asyncio.sleep(0.005)
    return time.perf_counter()


async def _count(stage: Stage, cycle: dict[str, Any]) -> int:
    query = "SELECT count(*) FROM contributions WHERE cycle_id = $1::text::uuid"
    return int(await stage.owner.fetchval(query, cycle["cycleId"]))
